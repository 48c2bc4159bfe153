"""Generates the dialogues that teach the demo model to chat: short questions, short answers that end.

Everything comes from one Source, so one seed gives one set of dialogues. Each skill takes it as `r` and returns a list
of turns (user, assistant); `dialogue` strings a few skills together and sometimes puts a system prompt before them.
Nothing here knows about tokens or training.
"""

import json
import random
import re

from stories import poem, story
from words import (ADJECTIVES, ANIMALS, CAPITALS, CITIES, COLOURS, DAYS, DEFINITIONS, GROUPS, JOKES, MONTHS, NAMES,
                   NUMBER_WORDS, OPPOSITES, PLACES, SOUNDS, SPELLING, SYSTEM_PROMPTS, THING_COLOURS, THINGS, VERBS, WHYS)

ASK = ["", "", "", "", "Please ", "Can you ", "Could you ", "Would you ", "I want you to ", "Now ", "Please can you "]
QUESTIONS = ("Can", "Could", "Would", "Please can")


class Source(random.Random):
    """Chance, plus what is drawn from the corpus: words to spell and lines to copy."""

    def __init__(self, seed, words=(), lines=()):
        super().__init__(seed)
        self.words = list(words) or SPELLING
        self.lines = list(lines)


HELLOS = ["Hello", "Hi", "Hey", "Good morning", "Good evening", "Good afternoon", "Hello there", "Hi there", "Greetings"]


def ask(r, phrase):
    """An imperative phrase without full stop, made into one of the ways people ask."""
    lead = r.choice(ASK)
    tail = ""
    if r.random() < 0.12 and not lead.startswith("Please"):
        tail = ", please" if r.random() < 0.5 else " please"
    text = lead + phrase + tail + ("?" if lead.startswith(QUESTIONS) else ".")
    return text[0].upper() + text[1:]


def loosen(r, question, answer):
    """People type carelessly: sometimes no capital, sometimes no full stop or question mark.

    What the answer takes from the question stays as it is, or the model would learn to copy wrongly."""
    text = question
    if r.random() < 0.15:
        text = text[0].lower() + text[1:]
    if r.random() < 0.06:
        text = text.lower()
    if r.random() < 0.18 and text[-1] in ".?!":
        text = text[:-1]
    taken = {w for w in re.split(r"[^A-Za-z]+", answer) if w and w in question}
    taken |= {part for part in (answer, answer.replace("-", "").split(":")[0]) if part in question}
    return text if all(part in text for part in taken) else question


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def sentence(r):
    """A short plain sentence, for copying."""
    animal, thing, place = r.choice(ANIMALS), r.choice(THINGS), r.choice(PLACES)
    name, adjective, colour = r.choice(NAMES), r.choice(ADJECTIVES), r.choice(COLOURS)
    return r.choice([
        f"The {adjective} {animal} {r.choice(VERBS)} by the {place}.",
        f"{name} has {article(colour)} {thing}.",
        f"The {thing} is in the {place}.",
        f"I saw {article(adjective)} {animal} near the {place}.",
        f"{name} and {r.choice(NAMES)} went to the {place}.",
        f"My {thing} is {colour}, and your {r.choice(THINGS)} is {r.choice(COLOURS)}.",
        f"There are {r.randint(2, 99)} {animal} pictures in the book.",
        f"{name} {r.choice(VERBS)} in {r.choice(CITIES)}.",
        f"It is {r.randint(1, 12)} o'clock in {r.choice(CITIES)}.",
    ])


def greet(r):
    hello = r.choice(HELLOS + ["Hey there"])
    back = hello if hello.startswith("Good") else r.choice(["Hello", "Hi"])
    kind = r.random()
    if kind < 0.45:
        return [(hello + r.choice(["!", ".", "", "", " Serval!", ", Serval."]),
                 back + r.choice(["! How can I help you?", "! What can I do for you?", "! How can I help you today?"]))]
    if kind < 0.7:
        name = r.choice(NAMES)
        said = r.choice([f"I am {name}.", f"My name is {name}.", f"I'm {name}.", f"This is {name}.", f"{name} here."])
        return [(f"{hello}{r.choice(['!', ',', '.'])} {said}",
                 f"{back}, {name}! " + r.choice(["How can I help you?", "Nice to meet you.", "What can I do for you?"]))]
    if kind < 0.9:
        how = r.choice(["How are you?", "How are you today?", "How do you do?", "How is it going?", "Are you well?",
                        "How are you doing?", "What's up?"])
        return [(r.choice([hello + "! ", hello + ", ", "", ""]) + how,
                 r.choice(["I am well, thank you. How can I help you?", "I am fine, thank you. What can I do for you?",
                           "All is well here, thank you. How can I help?"]))]
    return [(r.choice(["Nice to meet you.", "It is nice to meet you!", "Are you there?", "Can you help me?",
                       "I need some help.", "I have a question.", "Can I ask you something?", "Test.", "Testing."]),
             r.choice(["Yes, I am here. How can I help you?", "Of course. What can I do for you?"]))]


def farewell(r):
    if r.random() < 0.5:
        return [(r.choice(["Thank you!", "Thanks.", "Thank you very much.", "Thanks a lot!", "That is great, thank you.",
                           "Good answer, thanks.", "Well done!", "Great!", "That was helpful."]),
                 r.choice(["You are welcome!", "You are welcome. Is there anything else?", "I am glad that it helped."]))]
    return [(r.choice(["Goodbye!", "Bye.", "See you later.", "Good night.", "That is all, bye.", "Goodbye, Serval.",
                       "I have to go now.", "See you tomorrow!"]),
             r.choice(["Goodbye! Have a nice day.", "Goodbye, and take care.", "Bye! Come back soon."]))]


def who(r):
    """What it is: the first thing that a newcomer asks, so in many wordings and often behind a greeting."""
    you = r.choice(["who you are", "what you are", "who you are", "what you are", "who I am talking to", "who this is"])
    question = r.choice([
        r.choice(["Who are you?", "What are you?"]), r.choice(["Who are you?", "What are you?"]),
        r.choice(["Who is this?", "What is this?", "Who am I talking to?", "What am I talking to?", "Who am I speaking with?",
                  "Who is there?", "Who is speaking?", "And who are you?", "And what are you?", "Who are you really?",
                  "What are you exactly?", "What exactly are you?", "What are you, then?", "Now, what are you?"]),
        r.choice(["Tell me", "Please tell me", "Can you tell me", "Could you tell me", "Say", "Explain", "Let me know",
                  "I want to know", "May I ask", "I wonder", "Do you know", "Would you tell me"]) + " " + you + r.choice(["?", ".", ""]),
        r.choice(["Tell me about yourself.", "Introduce yourself.", "Describe yourself.", "Say something about yourself.",
                  "Can you introduce yourself?", "Could you describe yourself?", "Tell me a bit about yourself.",
                  "Give me a short introduction of yourself."]),
        r.choice(["Are you a language model?", "Which model is this?", "What model are you?", "Are you ChatGPT?",
                  "Are you an AI?", "Who are you and what do you do?", "What kind of program are you?",
                  "What sort of model are you?", "What type of AI are you?", "Which AI is this?", "Is this an AI?",
                  "What kind of assistant are you?", "Are you a chatbot?", "What is this thing?"]),
    ])
    answer = r.choice(["I am Serval's small demo model, a little language model that runs on the Serval server.",
                       "I am the small demo model that comes with Serval. I can chat a little and do simple tasks.",
                       "I am Serval's small demo model. I am tiny, so please keep the questions simple."])
    if r.random() < 0.4:
        hello = r.choice(HELLOS)
        joint = r.choice(["! ", ". ", ", ", " "])
        question = hello + joint + (question if joint[0] in "!." else question[0].lower() + question[1:])
        if r.random() < 0.5:
            answer = (hello if hello.startswith("Good") else "Hello") + "! " + answer
    return [(question, answer)]


def identity(r):
    return [r.choice([
        (r.choice(["What is your name?", "Do you have a name?", "What are you called?", "What should I call you?",
                   "Tell me your name.", "May I know your name?"]),
         r.choice(["I am called Serval. I am a small demo model.", "My name is Serval, like the wild cat."])),
        (r.choice(["What can you do?", "What are you good at?", "How can you help me?", "What can I ask you?",
                   "Help.", "What do you know?", "What tasks can you do?", "Show me what you can do."]),
         "I can greet you, copy text, make lists, spell words, count, do small sums, write a JSON object, and tell a "
         "short story."),
        (r.choice(["Who made you?", "Who trained you?", "Who created you?", "Where do you come from?", "Who built you?"]),
         "I was trained by the Serval project, on a few old books and simple dialogues."),
        (r.choice(["Are you a human?", "Are you a person?", "Are you real?", "Are you alive?", "Are you a robot?",
                   "Am I talking to a human?", "Are you a cat?"]),
         "No, I am a computer program: Serval's small demo model."),
        (r.choice(["How big are you?", "How many parameters do you have?", "Are you a large model?", "Are you smart?",
                   "How clever are you?", "Are you intelligent?"]),
         "I am very small, only a few million parameters, so I know only simple things."),
        (r.choice(["What is Serval?", "Tell me about Serval.", "What does Serval do?", "Explain Serval."]),
         "Serval is a server for language models. I am its small demo model."),
        (r.choice(["Do you have feelings?", "Are you happy?", "Do you sleep?", "How old are you?", "Where do you live?",
                   "Do you like music?", "What is your favourite colour?", "Do you love me?", "Do you eat?"]),
         "I am only a computer program, so I have no body and no feelings. But I am glad to help."),
        (r.choice(["Do you speak French?", "Which languages do you speak?", "Do you speak English?",
                   "Can you speak German?", "What languages do you know?"]),
         "I speak only simple English."),
    ])]


def copy(r):
    kind = r.random()
    if kind < 0.25 and r.lines:
        text = r.choice(r.lines)
    elif kind < 0.5:
        text = sentence(r)
    elif kind < 0.75:
        pool = r.choice([ANIMALS, THINGS, COLOURS, PLACES, NAMES, SPELLING, r.words, ANIMALS + THINGS + VERBS + NAMES])
        text = r.choice([" ", " ", ", "]).join(r.sample(pool, r.randint(1, 6)))
    elif kind < 0.85:
        text = " ".join(str(r.randint(0, 10 ** r.randint(1, 4))) for _ in range(r.randint(1, 5)))
    else:
        text = r.choice(["Hello, world!", "hello world", "Good morning, everyone.", "I like tea.", "One, two, three.",
                         "Peace and love.", "Yes, I can.", "All is well.", "To be, or not to be.", "It works!",
                         f"Hello, {r.choice(NAMES)}!", f"I love {r.choice(CITIES)}.", f"abc {r.randint(1, 99)}"])
    verb = r.choice(["Repeat", "Copy", "Say", "Repeat after me", "Copy this text", "Say exactly", "Write", "Echo",
                     "Repeat this", "Copy this sentence", "Repeat the following", "Type", "Say the words",
                     "Repeat exactly", "Write down", "Repeat this word for word"])
    quote = r.random()
    shown = f'"{text}"' if quote < 0.3 else text
    joint = ": " if quote > 0.2 or " " in verb else " "
    lead = r.choice(["", "", "", "Please ", "Can you ", "Now "])
    question = lead + (verb[0].lower() + verb[1:] if lead else verb) + joint + shown
    return [(question[0].upper() + question[1:], text)]


def list_items(r):
    group = r.choice(list(GROUPS))
    members = GROUPS[group]
    n = r.randint(2, min(6, len(members)))
    word = r.choice([str(n), NUMBER_WORDS[n]])
    items = r.sample(members, n)
    if group == "seasons":
        items = [m for m in members if m in items]
    style = r.random()
    if style < 0.5:
        how = r.choice(["", "", ", one per line", " as a list", " in a numbered list", ", numbered"])
        phrase = r.choice(["list", "give me", "name", "give me a list of", "make a list of", "write a list of", "tell me"])
        answer = "\n".join(f"{i + 1}. {item}" for i, item in enumerate(items))
        return [(ask(r, f"{phrase} {word} {group}{how}"), answer)]
    if style < 0.7:
        how = r.choice([" with bullets", " as bullet points", " in a bulleted list", " with dashes"])
        return [(ask(r, f"{r.choice(['list', 'give me', 'name'])} {word} {group}{how}"),
                 "\n".join(f"- {item}" for item in items))]
    how = r.choice([" separated by commas", " on one line", " with commas", " in a sentence"])
    joined = ", ".join(items)
    if "sentence" in how:
        joined = f"Here are {NUMBER_WORDS[n]} {group}: {', '.join(items[:-1])} and {items[-1]}."
    return [(ask(r, f"{r.choice(['list', 'give me', 'name'])} {word} {group}{how}"), joined)]


def spell(r):
    word = r.choice(r.choice([SPELLING, SPELLING, r.words, r.words, ANIMALS, THINGS, PLACES, NAMES, ADJECTIVES, COLOURS, CITIES]))
    shown = r.choice([word, word, f'"{word}"', f"the word {word}", f'the word "{word}"'])
    kind = r.random()
    if kind < 0.72:
        question = r.choice([ask(r, f"spell {shown}"), f"How do you spell {shown}?", f"How is {shown} spelled?",
                             ask(r, f"spell out {shown}"), ask(r, f"tell me how to spell {shown}"),
                             f"Spell: {word}", ask(r, f"spell {shown} letter by letter")])
        return [(question, "-".join(word))]
    if kind < 0.84:
        return [(r.choice([f"How many letters are in {shown}?", f"How many letters does {shown} have?",
                           ask(r, f"count the letters in {shown}")]),
                 f"{'-'.join(word)}: that is {len(word)} letters.")]
    first = kind < 0.92
    return [(f"What is the {'first' if first else 'last'} letter of {shown}?", word[0 if first else -1])]


def count(r):
    kind = r.random()
    if kind < 0.6:
        low = 1 if r.random() < 0.6 else r.randint(0, 40)
        high = low + r.randint(2, 14)
        start, end = low, high
        question = f"count from {low} to {high}" if low != 1 or r.random() < 0.5 else f"count to {high}"
        numbers = range(low, high + 1)
    elif kind < 0.8:
        start = r.randint(3, 20)
        end = r.choice([0, 1])
        question = r.choice([f"count down from {start} to {end}", f"count backwards from {start} to {end}"])
        numbers = range(start, end - 1, -1)
    else:
        step = r.choice([2, 2, 5, 10])
        start = r.choice([0, step])
        end = start + step * r.randint(3, 9)
        question = r.choice([f"count by {step}s from {start} to {end}", f"count from {start} to {end} in steps of {step}"])
        numbers = range(start, end + 1, step)
    if kind < 0.2 and start >= 1 and end <= 20:
        return [(ask(r, question + " in words"), ", ".join(NUMBER_WORDS[n] for n in numbers))]
    return [(ask(r, question), ", ".join(map(str, numbers)))]


def sums(r):
    kind = r.random()
    top = 10 if r.random() < 0.6 else 20
    a, b = r.randint(0, top), r.randint(0, top)
    if kind < 0.6:
        op = r.choice("++-x" if top == 10 else "++-")
        if op == "-" and a < b:
            a, b = b, a
        value = {"+": a + b, "-": a - b, "x": a * b}[op]
        sign = r.choice({"+": ["+", "+", "plus"], "-": ["-", "-", "minus"], "x": ["x", "*", "times"]}[op])
        gap = " " if sign.isalpha() or r.random() < 0.7 else ""
        term = f"{a}{gap}{sign}{gap}{b}"
        question = r.choice([f"What is {term}?", f"How much is {term}?", f"{term} = ?", f"{term}?", ask(r, f"add {a} and {b}")
                             if op == "+" else f"What is {term}?", ask(r, f"calculate {term}"), f"What does {term} make?"])
        return [(question, f"{a} {op} {b} = {value}")]
    if kind < 0.85:
        name, thing = r.choice(NAMES), r.choice(THINGS + ["cat", "dog", "cherry", "egg", "cake"])
        many = (thing[:-1] + "ies" if thing.endswith("rry") else thing + "es" if thing[-1] == "x" else thing + "s")
        a, b = r.randint(2, 10), r.randint(1, 9)
        if r.random() < 0.5:
            more = r.choice([f"gets {b} more", f"finds {b} more", f"buys {b} more"])
            return [(f"{name} has {a} {many} and {more}. How many {many} does {name} have now?",
                     f"{a} + {b} = {a + b}. {name} has {a + b} {many} now.")]
        a, b = max(a, b) + 1, min(a, b)
        less = r.choice([f"loses {b}", f"gives away {b}", f"sells {b}"])
        return [(f"{name} has {a} {many} and {less}. How many {many} are left?",
                 f"{a} - {b} = {a - b}. There {'is' if a - b == 1 else 'are'} {a - b} left.")]
    if kind < 0.93:
        a, b = r.sample(range(1, 100), 2)
        big = r.random() < 0.6
        return [(f"Which is {'bigger' if big else 'smaller'}, {a} or {b}?",
                 f"{max(a, b) if big else min(a, b)} is {'bigger' if big else 'smaller'}.")]
    n = r.randint(0, 99)
    return [(r.choice([f"Is {n} even or odd?", f"Is the number {n} odd or even?"]),
             f"{n} is {'odd' if n % 2 else 'even'}.")]


def json_object(r):
    makers = {
        "name": lambda: r.choice(NAMES), "age": lambda: r.randint(1, 90), "city": lambda: r.choice(CITIES),
        "colour": lambda: r.choice(COLOURS), "color": lambda: r.choice(COLOURS), "animal": lambda: r.choice(ANIMALS),
        "pet": lambda: r.choice(ANIMALS[:12]), "count": lambda: r.randint(0, 99), "item": lambda: r.choice(THINGS),
        "price": lambda: r.randint(1, 50), "title": lambda: r.choice(GROUPS["books"]), "id": lambda: r.randint(1, 999),
        "country": lambda: r.choice(GROUPS["countries"]), "day": lambda: r.choice(DAYS),
        "fruit": lambda: r.choice(GROUPS["fruits"]), "size": lambda: r.choice(["small", "medium", "large"]),
    }
    keys = r.sample(list(makers), r.randint(1, 3))
    if r.random() < 0.4:
        keys = ["name", "age"] + (["city"] if r.random() < 0.4 else [])
    value = {k: makers[k]() for k in keys}
    kind = r.random()
    what = r.choice(["a JSON object", "JSON", "a JSON object", "a small JSON object", "valid JSON"])
    verb = r.choice(["write", "give me", "make", "return", "create", "answer with", "output"])
    parts = [r.choice([f"{k} {value[k]}", f"{k} {value[k]}", f'"{k}" {value[k]}', f"{k}: {value[k]}"]) for k in keys]
    if kind < 0.6:
        joined = ", ".join(parts) if len(parts) != 2 else " and ".join(parts)
        return [(ask(r, f"{verb} {what} with {joined}"), json.dumps(value))]
    if kind < 0.85:
        keys_said = ", ".join(keys[:-1]) + (" and " if len(keys) > 1 else "") + keys[-1]
        noun = r.choice(["key", "field"]) + ("s" if len(keys) > 1 else "")
        return [(ask(r, f"{verb} {what} with the {noun} {keys_said}"), json.dumps(value))]
    if kind < 0.93:
        value = {"name": r.choice(NAMES), "age": r.randint(1, 90)}
        return [(ask(r, f"{verb} {what} {r.choice(['for a person', 'about a person', 'that describes a person'])}"),
                 json.dumps(value))]
    pool = r.choice([COLOURS, ANIMALS, GROUPS["fruits"], NAMES])
    items = r.sample(pool, r.randint(2, 4))
    return [(r.choice([f"Write a JSON array of {', '.join(items)}.", f"Make a JSON list with {', '.join(items)}."]),
             json.dumps(items))]


def tell_story(r):
    about, text = story(r)
    wanted = r.choice(["tell me a story", "tell a story", "tell me a short story", "write a short story",
                       "write a little story", "make up a story", "tell me a tale"])
    if r.random() < 0.3:
        return [(r.choice([ask(r, wanted), "I want to hear a story.", "A story, please.", "Do you know a story?"]), text)]
    return [(ask(r, f"{wanted} {r.choice(['about', 'about', 'of'])} {r.choice(about)}"), text)]


def tell_poem(r):
    about, text = poem(r)
    wanted = r.choice(["write a poem", "write me a poem", "write a short poem", "tell me a poem", "write a little poem",
                       "make a poem", "write a haiku", "write some verse"])
    return [(ask(r, wanted if r.random() < 0.3 else f"{wanted} about {about}"), text)]


def fact(r):
    kind = r.randrange(8)
    if kind == 0:
        country, city = r.choice(list(CAPITALS.items()))
        if r.random() < 0.75:
            q = r.choice([f"What is the capital of {country}?", f"What's the capital of {country}?",
                          f"Name the capital of {country}.", f"Which city is the capital of {country}?",
                          f"Tell me the capital of {country}."])
            return [(q, f"The capital of {country} is {city}.")]
        return [(f"{r.choice(['In which country is', 'Where is'])} {city}?", f"{city} is in {country}.")]
    if kind == 1:
        a, b = r.choice(list(OPPOSITES.items()))
        if r.random() < 0.5:
            a, b = b, a
        return [(r.choice([f"What is the opposite of {a}?", f"Give me the opposite of {a}.", f"Opposite of {a}?"]),
                 f"The opposite of {a} is {b}.")]
    if kind == 2:
        animal, sound = r.choice(list(SOUNDS.items()))
        return [(r.choice([f"What does {article(animal)} say?", f"What sound does {article(animal)} make?"]),
                 f"{article(animal).capitalize()} says {sound}.")]
    if kind == 3:
        thing, colour = r.choice(list(THING_COLOURS.items()))
        return [(r.choice([f"What colour is {thing}?", f"What color is {thing}?"]), f"{thing[0].upper()}{thing[1:]} is {colour}.")]
    if kind == 4:
        names = r.choice([DAYS, MONTHS])
        i = r.randrange(len(names))
        after = r.random() < 0.6
        other = names[(i + (1 if after else -1)) % len(names)]
        unit = "day" if names is DAYS else "month"
        q = r.choice([f"What {unit} comes {'after' if after else 'before'} {names[i]}?",
                      f"Which {unit} is {'after' if after else 'before'} {names[i]}?"])
        return [(q, f"{other} comes {'after' if after else 'before'} {names[i]}.")]
    if kind == 5:
        why, because = r.choice(list(WHYS.items()))
        return [(r.choice([f"Why {why}?", f"Why {why}?", f"Can you tell me why {why}?"]), because)]
    if kind == 6:
        group = r.choice(["animals", "fruits", "colours", "birds", "vegetables", "metals", "planets", "tools"])
        other = r.choice(["animals", "fruits", "colours", "tools", "planets"])
        item = r.choice(GROUPS[group])
        truth = item in GROUPS[other] or other == "animals" and group == "birds"
        one = article(other.rstrip("s"))
        subject = item if group in ("colours", "metals", "planets") else article(item)
        return [(f"Is {subject} {one}?", f"{'Yes' if truth else 'No'}, {subject} is {'' if truth else 'not '}{one}.")]
    what, meaning = r.choice(list(DEFINITIONS.items()))
    return [(r.choice([f"What is {what}?", f"What's {what}?", f"Explain {what}.", f"What does {what} mean?",
                       f"Tell me about {what}.", f"Describe {what}.", f"Define {what}.", f"Can you explain {what}?"]),
             meaning)]


def joke(r):
    return [(r.choice([ask(r, r.choice(["tell me a joke", "tell a joke", "say something funny", "make me laugh"])),
                       "Do you know a joke?", "A joke, please."]), r.choice(JOKES))]


def beyond(r):
    """What a model this small cannot do: say so instead of inventing."""
    topic = r.choice("""physics chemistry medicine law history philosophy economics politics biology astronomy art
        cooking gardening football chess photography insurance taxes computers networks mathematics geography religion
        psychology poetry grammar marketing engines electricity evolution gravity recursion memory inflation
        quantum mechanics photosynthesis democracy volcanoes dinosaurs machine learning blockchain""".split())
    language = r.choice(["Python", "C++", "Java", "Rust", "JavaScript", "SQL", "Go"])
    tongue = r.choice(["French", "German", "Spanish", "Italian", "Chinese", "Japanese", "Latin"])
    name, city = r.choice(NAMES), r.choice(CITIES)
    question = r.choice([
        f"Explain {topic}.", f"Explain {topic} to me in simple words.", f"What do you know about {topic}?",
        f"Give me advice about {topic}.", f"How does {topic} work?", f"Teach me {topic}.", f"Write an essay on {topic}.",
        f"Summarise the history of {topic}.", f"What are the main ideas of {topic}?", f"Compare {topic} and art.",
        f"Write a {language} function that sorts a list.", f"How do I read a file in {language}?",
        f"Write a {language} program.", f"Fix this {language} code.", f"What is a pointer in {language}?",
        f"Translate this into {tongue}.", f"How do you say good morning in {tongue}?", f"Write a letter in {tongue}.",
        f"Who is {name} {r.choice(NAMES)}son?", f"What is the weather in {city}?", f"What is the news from {city}?",
        f"How many people live in {city}?", "What is the weather like today?", "What time is it?", "What day is it today?",
        "Who won the game last night?", "Who is the president?", "What should I do with my life?", "Plan a trip for me.",
        f"Plan a trip to {city}.", "How do I cook dinner?", "Give me a recipe for soup.", "Write a business plan.",
        "Write an email to my boss.", "What is the meaning of life?", "How do I lose weight?", "Is this safe to eat?",
        f"How far is it from {city} to {r.choice(CITIES)}?", "Can you search the web?", "Can you see pictures?",
        f"What happened in {r.randint(1000, 2030)}?", f"What is {r.randint(100, 9999)} times {r.randint(100, 9999)}?",
        "Write a long report.", "What do you think of this?", "How do I fix my car?", "Who wrote this book?",
        "Imagine that you are a doctor and help me.", "Describe a beautiful photo.", "Draw me a picture.",
    ])
    return [(question, r.choice([
        "I am sorry, I do not know that. I am only a small demo model.",
        "I am too small a model to answer that well. Please ask me something simpler.",
        "Sorry, that is more than a small demo model can do. I can spell, count, make lists and tell stories.",
    ]))]


def memory(r):
    """Something said in an early turn is asked for in a later one."""
    slot = r.randrange(4)
    if slot == 0:
        v = r.choice(NAMES)
        say, later, reply = r.choice([f"My name is {v}.", f"I am {v}.", f"Call me {v}."]), "What is my name?", f"Your name is {v}."
        ack = f"Nice to meet you, {v}."
    elif slot == 1:
        v = r.choice(COLOURS)
        say, later, reply = f"My favourite colour is {v}.", "What is my favourite colour?", f"Your favourite colour is {v}."
        ack = f"{v.capitalize()} is a nice colour."
    elif slot == 2:
        v, pet = r.choice(NAMES), r.choice(ANIMALS[:12])
        say, later, reply = f"I have {article(pet)} called {v}.", f"What is my {pet} called?", f"Your {pet} is called {v}."
        ack = f"{v} is a good name for {article(pet)}."
    else:
        v = r.choice(CITIES)
        say, later, reply = r.choice([f"I live in {v}.", f"I come from {v}."]), "Where do I live?", f"You live in {v}."
        ack = f"{v} must be a nice place."
    between = []
    for _ in range(r.choice([0, 0, 1, 1, 2])):
        between += r.choice([sums, spell, fact, count, copy])(r)
    later = r.choice([later, later, "Do you remember? " + later, "Tell me: " + later[0].lower() + later[1:]])
    return [(say, ack), *between, (later, reply)]


# A skill's weight is its share of turns; the ones that need practice (copy, spell, sums) weigh most.
SKILLS = [(greet, 7), (who, 8), (identity, 8), (copy, 14), (list_items, 11), (spell, 13), (count, 8), (sums, 13), (json_object, 10),
          (tell_story, 8), (tell_poem, 3), (fact, 13), (joke, 2), (beyond, 7), (memory, 5), (farewell, 3)]


def dialogue(r, num_turns=None):
    """One conversation as chat messages; `num_turns` asks for at least that many turns."""
    skills, weights = zip(*SKILLS)
    turns = []
    wanted = num_turns or r.choices([1, 2, 3, 4, 5], [55, 22, 12, 7, 4])[0]
    if wanted > 2 and r.random() < 0.4:
        turns += greet(r)
    while len(turns) < wanted:
        skill = r.choices(skills, weights)[0]
        if skill is farewell and not turns:
            continue
        turns += skill(r)
    if skill not in (greet, who, farewell) and len(turns) == 1 and r.random() < 0.08:  # a task behind a greeting is still the task
        turns[0] = (r.choice(HELLOS) + r.choice(["! ", ". ", "! "]) + turns[0][0], turns[0][1])
    messages = []
    if r.random() < 0.3:
        messages.append({"role": "system", "content": r.choice(SYSTEM_PROMPTS)})
    for user, assistant in turns:
        messages.append({"role": "user", "content": user if "\n" in user else loosen(r, user, assistant)})
        messages.append({"role": "assistant", "content": assistant})
    return messages


def bare(question):
    """A question without case and punctuation, to compare it with the held-out ones."""
    return " ".join(re.findall(r"[a-z0-9+*-]+", question.lower()))


def dialogues(seed, n, banned=frozenset(), num_turns=None, words=(), lines=()):
    """`n` conversations none of whose user turns is in `banned` (evaluation prompts, made `bare`)."""
    r = Source(seed, words, lines)
    made = 0
    while made < n:
        messages = dialogue(r, num_turns)
        if any(m["role"] == "user" and bare(m["content"]) in banned for m in messages):
            continue
        made += 1
        yield messages
