"""Word lists for the generated dialogues. Plain data: no chance, no phrasing."""

NAMES = """Ada Ben Clara Dan Emma Finn Grace Hugo Iris Jack Kate Leo Maya Nora Omar Paula Quinn Rosa Sam Tara
Uma Victor Wendy Yara Zoe Alice Bob Carol David Ella Frank Gina Henry Ivan Julia Karl Lucy Mark Nina Oscar Peter
Ruth Simon Tom Anna Mary John James Sarah Laura Paul Jane Max Lily Lena Noah Mia Alan Linda Elena Priya Ravi
Chen Mei Yuki Kenji Amir Fatima Pierre Marie Natasha Andrew George Harry Charles Martha Rose Hannah Daniel Ali
Olga Sofia Diego Carlos Ines Tim Bill Steve Jill Amy Eva Otto Felix Greta""".split()

CITIES = """Paris London Rome Berlin Madrid Lisbon Vienna Oslo Dublin Athens Cairo Delhi Tokyo Moscow Boston
Chicago Toronto Sydney Prague Warsaw Geneva Bath York Leeds Milan Lyon Porto Seville""".split()

ADJECTIVES = """old young small big quiet happy little clever brave tired kind lonely hungry gentle proud curious
shy cheerful lazy busy honest careful gray white brown friendly tiny wise""".split()

PLACES = """river forest hill village garden lake market mountain harbour field meadow mill castle island
valley farm bridge beach cave orchard road town library tower""".split()

ANIMALS = """cat dog fox bear rabbit mouse horse cow sheep goat pig duck owl lion tiger wolf deer frog bee
hen whale seal crow swan donkey squirrel hedgehog turtle monkey elephant zebra serval""".split()

THINGS = """lantern key book coin ring letter map bell hat boat basket stone feather apple mirror rope
candle flute blanket box kite drum button spoon clock coat ladder bottle""".split()

VERBS = """sleeps runs sings waits jumps walks swims hides eats dances reads works plays rests laughs""".split()

COLOURS = "red blue green yellow orange purple black white brown pink gray".split()

# Sorted into the groups that the "list" skill can be asked for: plural name -> members.
GROUPS = {
    "animals": ANIMALS,
    "pets": "cat dog rabbit hamster goldfish parrot turtle mouse canary".split(),
    "birds": "owl robin eagle crow swan duck sparrow hawk goose pigeon raven parrot".split(),
    "fish": "trout salmon cod herring tuna carp pike eel".split(),
    "insects": "bee ant fly wasp beetle moth butterfly cricket".split(),
    "fruits": "apple pear plum cherry grape lemon orange banana peach melon mango fig".split(),
    "vegetables": "carrot potato onion cabbage bean pea leek pumpkin spinach turnip".split(),
    "colours": COLOURS,
    "colors": COLOURS,
    "countries": "France Italy Spain Germany Norway Japan India Egypt Brazil Canada Greece Poland".split(),
    "cities": CITIES,
    "names": NAMES,
    "flowers": "rose lily daisy tulip violet poppy iris orchid sunflower".split(),
    "trees": "oak pine birch ash elm willow maple beech cedar".split(),
    "drinks": "water tea coffee milk juice lemonade cocoa cider".split(),
    "foods": "bread cheese rice soup eggs pasta salad butter honey cake".split(),
    "tools": "hammer saw drill wrench axe spade chisel rake ladder".split(),
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "sports": "football tennis rugby golf cricket hockey rowing swimming running".split(),
    "instruments": "piano violin flute drum harp guitar trumpet cello horn".split(),
    "shapes": "circle square triangle rectangle star oval cube".split(),
    "clothes": "hat coat shirt dress shoes socks gloves scarf jacket".split(),
    "seasons": "spring summer autumn winter".split(),
    "jobs": "doctor teacher baker farmer nurse sailor cook writer painter singer".split(),
    "metals": "iron gold silver copper tin lead zinc".split(),
    "rooms": "kitchen bedroom bathroom hall attic cellar study".split(),
    "books": ["War and Peace", "Pride and Prejudice", "Alice in Wonderland", "Botchan", "Hamlet", "Macbeth"],
    "vowels": "a e i o u".split(),
}

# Extra words for spelling, over and above the lists here.
SPELLING = """house water bread table chair window door light night morning summer winter river music paper
pencil school teacher friend mother father sister brother family garden flower kitchen dinner breakfast hello
world yellow orange purple silver golden happy funny clever little people answer question server model number
letter word story simple always never before after under over between mountain ocean island planet rocket
train plane ship bridge street city village country queen king prince princess castle dragon magic dream sleep
sugar salt pepper butter cheese honey cherry banana lemon potato carrot onion computer keyboard engine wheel
tree grass cloud rain snow wind storm thunder sun moon star sky fire earth gold iron wood glass cotton wool
hand foot head heart face nose mouth tooth finger thumb knee back neck hair eye ear arm leg cup plate fork
knife spoon bowl bag box ball game toy doll card book page pen ink desk lamp clock watch money coin shop
store price cake soup meat fish milk tea coffee juice big small tall short long round square fast slow hot cold
warm cool new old good bad kind brave strong weak rich poor first last left right north south east west one two
three four five six seven eight nine ten hundred thousand january monday friday sunday spring autumn love hope
peace war truth beauty language science history nature animal monkey elephant giraffe tiger zebra""".split()

CAPITALS = {
    "France": "Paris", "England": "London", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid",
    "Portugal": "Lisbon", "Austria": "Vienna", "Norway": "Oslo", "Ireland": "Dublin", "Greece": "Athens",
    "Egypt": "Cairo", "India": "New Delhi", "Japan": "Tokyo", "Russia": "Moscow", "Poland": "Warsaw",
    "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki", "Hungary": "Budapest",
    "Canada": "Ottawa", "China": "Beijing", "Australia": "Canberra", "Scotland": "Edinburgh", "Belgium": "Brussels",
    "Brazil": "Brasilia", "Turkey": "Ankara", "the United States": "Washington",
}

OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "left": "right", "day": "night", "old": "young", "fast": "slow",
    "happy": "sad", "light": "dark", "open": "closed", "wet": "dry", "hard": "soft", "early": "late", "rich": "poor",
    "high": "low", "full": "empty", "long": "short", "strong": "weak", "good": "bad", "loud": "quiet",
    "black": "white", "true": "false", "yes": "no", "start": "end", "first": "last", "love": "hate", "war": "peace",
}

SOUNDS = {"cow": "moo", "dog": "woof", "cat": "meow", "sheep": "baa", "duck": "quack", "pig": "oink",
          "horse": "neigh", "lion": "roar", "owl": "hoot", "bee": "buzz", "hen": "cluck", "frog": "croak",
          "wolf": "howl", "mouse": "squeak", "crow": "caw"}

THING_COLOURS = {"the sky": "blue", "grass": "green", "snow": "white", "a lemon": "yellow", "coal": "black",
                 "blood": "red", "the sun": "yellow", "a banana": "yellow", "milk": "white", "the sea": "blue",
                 "a carrot": "orange", "a leaf": "green", "a strawberry": "red", "chocolate": "brown",
                 "a crow": "black", "a rose": "often red", "an elephant": "gray", "a swan": "white"}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November December""".split()

NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty""".split()

# "What is a ...?" One plain sentence each.
DEFINITIONS = {
    "a cat": "A cat is a small animal with soft fur that many people keep as a pet.",
    "a dog": "A dog is a friendly animal that barks and often lives with people.",
    "a fox": "A fox is a wild animal with red fur and a long tail.",
    "a bear": "A bear is a large, heavy animal with thick fur.",
    "a horse": "A horse is a big animal that people can ride.",
    "a cow": "A cow is a farm animal that gives us milk.",
    "a bird": "A bird is an animal with wings and feathers, and most birds can fly.",
    "a fish": "A fish is an animal that lives in water.",
    "a bee": "A bee is a small insect that makes honey.",
    "a whale": "A whale is a very large animal that lives in the sea.",
    "a serval": "A serval is a slender wild cat with long legs and large ears.",
    "a tree": "A tree is a tall plant with a trunk, branches and leaves.",
    "a flower": "A flower is the part of a plant that is often bright and smells sweet.",
    "a river": "A river is a long stream of water that flows to the sea.",
    "a mountain": "A mountain is a very high hill.",
    "a lake": "A lake is a large body of water with land all around it.",
    "the sea": "The sea is the salt water that covers most of the earth.",
    "the sun": "The sun is the star that gives us light and warmth.",
    "the moon": "The moon is the round body that goes around the earth and shines at night.",
    "a star": "A star is a ball of hot gas far away that shines in the night sky.",
    "a planet": "A planet is a large round body that goes around a star.",
    "rain": "Rain is water that falls in drops from the clouds.",
    "snow": "Snow is frozen water that falls from the sky in soft white flakes.",
    "a book": "A book is a set of pages with words, kept together by a cover.",
    "a poem": "A poem is a short piece of writing, often with rhythm and rhyme.",
    "a song": "A song is a piece of music with words that people sing.",
    "a house": "A house is a building where people live.",
    "a school": "A school is a place where children go to learn.",
    "a library": "A library is a place where many books are kept for people to read.",
    "a doctor": "A doctor is a person who helps sick people.",
    "a teacher": "A teacher is a person who helps others to learn.",
    "a king": "A king is a man who rules a country.",
    "a friend": "A friend is a person you know well and like.",
    "bread": "Bread is a food made from flour and water and baked in an oven.",
    "cheese": "Cheese is a food made from milk.",
    "an apple": "An apple is a round fruit that grows on a tree.",
    "music": "Music is sound put together so that it is pleasant to hear.",
    "a computer": "A computer is a machine that follows instructions and works with numbers and words.",
    "a server": "A server is a computer program that answers requests from other programs.",
    "a language model": "A language model is a program that reads text and predicts the next word.",
    "a token": "A token is a small piece of text, often a word or a part of a word.",
    "json": "JSON is a simple text format for data, made of names and values.",
    "a number": "A number is a word or sign that says how many.",
    "a triangle": "A triangle is a shape with three sides.",
    "a square": "A square is a shape with four equal sides.",
    "a clock": "A clock is a machine that tells the time.",
    "a boat": "A boat is a small ship that moves on water.",
    "love": "Love is a strong and warm feeling for someone.",
    "war": "War is fighting between countries.",
    "peace": "Peace is a time without war or fighting.",
    "time": "Time is what a clock measures, in hours, minutes and seconds.",
    "the capital of a country": "It is the city where the government sits.",
}

WHYS = {
    "is the sky blue": "The air scatters blue light more than the other colours, so the sky looks blue.",
    "do birds sing": "Birds sing to call to each other and to mark the place where they live.",
    "does it rain": "Water rises into the air, makes clouds, and falls again as rain.",
    "do we sleep": "We sleep so that the body and the mind can rest.",
    "is the sea salty": "Rivers carry salt from the rocks to the sea, and it stays there.",
    "do leaves fall": "In autumn the tree stops feeding its leaves, so they dry and fall.",
    "is the grass green": "Grass is green because of a green stuff that catches the sunlight.",
    "do people read": "People read to learn new things and to enjoy good stories.",
    "is ice cold": "Ice is frozen water, and water freezes only when it is very cold.",
    "do cats purr": "Cats often purr when they are calm and happy.",
    "do we eat": "We eat because food gives us strength.",
    "is snow white": "Snow is white because its small crystals send back all the light.",
    "do bees make honey": "Bees make honey so that they have food in the winter.",
    "does the sun shine": "The sun is so hot that it glows and sends light in every direction.",
    "do dogs bark": "Dogs bark to warn, to greet, and to ask for things.",
}

JOKES = [
    ("Why did the clock go to school? It wanted to learn to tell the time."),
    ("What has hands but cannot clap? A clock."),
    ("Why did the cookie go to the doctor? It felt crumby."),
    ("What do you call a sleeping bull? A bulldozer."),
    ("Why was the book so sad? It had too many problems in it."),
    ("What has a neck but no head? A bottle."),
    ("Why do bees hum? They forgot the words."),
    ("What gets wetter the more it dries? A towel."),
    ("Why did the cat sit on the computer? It wanted to watch the mouse."),
]

SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "You are a friendly assistant.", "You are Serval, a small demo model.",
    "Answer briefly.", "You are a helpful assistant. Keep your answers short.", "Be kind and brief.",
    "You answer in plain English.", "You are a polite assistant.", "Be concise.", "You are an assistant.",
    "You are a helpful and harmless assistant.", "Help the user.", "Answer the question of the user.",
    "You are a small language model that answers politely.", "Reply in one or two sentences.",
]
