"""Stories and poems for the generated dialogues, put together from parts that fit each other.

Each function takes a random.Random and returns (what it is about, text). The parts are few, but they multiply: hero,
place, quest, helper, trouble and ending are drawn independently, so hardly any two stories are equal.
"""

from words import ADJECTIVES, ANIMALS, NAMES, PLACES, THINGS

MOODS = ["One day", "One morning", "One evening", "One cold night", "One fine day", "One rainy day", "Early one morning"]
ENDINGS = ["From that day on they were good friends.", "And they all lived happily ever after.", "That night everyone slept well.",
           "It was the best day of all.", "And that is the end of the story.", "They still laugh about it today."]


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def story(r):
    """A story of five to eight sentences, and the phrases by which one may ask for it."""
    animal, friend = r.sample(ANIMALS, 2)
    adjective, place, thing = r.choice(ADJECTIVES), r.choice(PLACES), r.choice(THINGS)
    name = r.choice(NAMES)
    is_animal = r.random() < 0.65
    hero = animal if is_animal else r.choice(["girl", "boy", "king", "queen", "farmer", "sailor", "baker", "child"])
    pronoun, her = ("she", "her") if r.random() < 0.5 else ("he", "his")
    if hero in ("girl", "queen"):
        pronoun, her = "she", "her"
    if hero in ("boy", "king"):
        pronoun, her = "he", "his"
    he = pronoun.capitalize()
    lines = [r.choice([
        f"Once upon a time there was {article(adjective)} {hero} called {name}.",
        f"There was once {article(adjective)} {hero} whose name was {name}.",
        f"Long ago, {article(adjective)} {hero} called {name} lived near {article(place)}.",
        f"{name} was {article(adjective)} {hero} who lived by {article(place)}.",
    ])]
    plot = r.randrange(4)
    wishes = [
        f"{he} loved to walk near the {place}.",
        f"Every day {pronoun} went to the {place} to play.",
        f"{name} wanted to see the whole world.",
        f"{he} lived alone and wished for a friend.",
    ]
    if plot in (0, 2):  # in the other plots the thing is found, so it cannot be there from the start
        wishes.append(f"{he} had {article(thing)} and took good care of it.")
    lines.append(r.choice(wishes))
    mood = r.choice(MOODS)
    if plot == 0:
        lines += [f"{mood} {name} lost {her} {thing}.",
                  f"{he} looked for it in the {place}, but it was not there.",
                  f"Then {article(friend)} came by and said, \"I saw your {thing} under the old tree.\"",
                  r.choice([f"{name} ran to the tree and found it.", f"They went to the tree together, and there it was."]),
                  r.choice([f"\"Thank you!\" said {name}.", f"{name} was so happy that {pronoun} danced."])]
    elif plot == 1:
        lines += [f"{mood} {pronoun} found {article(thing)} by the {place}.",
                  f"\"Whose {thing} is this?\" asked {name}.",
                  f"\"It is mine,\" said {article(r.choice(['small', 'old', 'sad', 'tired']))} {friend}, \"and I have looked for it all day.\"",
                  f"{name} gave the {thing} back at once.",
                  r.choice([f"The {friend} smiled and shared some bread with {name}.", f"The {friend} thanked {name} and sang a song."])]
    elif plot == 2:
        lines += [f"{mood} a great storm came over the {place}.",
                  f"{name} heard a voice and saw {article(friend)} in the rain.",
                  f"\"Come in,\" said {name}, \"there is a fire and warm soup.\"",
                  f"They sat by the fire and told stories until the storm was over.",
                  r.choice([f"In the morning the {friend} gave {name} {article(thing)}.", "In the morning the sun was shining again."])]
    else:
        lines += [f"{mood} {pronoun} set out to find {article(thing)}.",
                  f"On the way {pronoun} met {article(friend)} who was lost.",
                  f"\"Walk with me,\" said {name}, and they went on together.",
                  f"At last they came to the {place}, and there lay the {thing}.",
                  r.choice([f"They carried it home and showed it to everyone.", f"But {name} was even happier about {her} new friend."])]
    lines.append(r.choice(ENDINGS))
    about = [article(hero), article(hero), f"{article(hero)} and {article(friend)}", article(thing), f"{article(adjective)} {hero}",
             f"{article(hero)} called {name}", f"{article(place)}"]
    return about, " ".join(lines)


POEM_SCENES = {
    "the sea": ("The sea is wide, the sea is deep,", "it rocks the little ships to sleep;"),
    "the moon": ("The moon is up, the moon is bright,", "it paints the fields with silver light;"),
    "the sun": ("The sun climbs up above the hill,", "the birds are loud, the wind is still;"),
    "rain": ("The rain comes down on roof and tree,", "it sings a quiet song to me;"),
    "winter": ("The snow lies white on field and lane,", "the frost has drawn on every pane;"),
    "spring": ("The spring has come, the buds are new,", "the grass is green, the sky is blue;"),
    "autumn": ("The leaves are red, the leaves are brown,", "they turn and tumble gently down;"),
    "night": ("The night is here, the stars are clear,", "there is no sound for us to hear;"),
    "love": ("My love is like a summer day,", "it drives the clouds and cold away;"),
    "a cat": ("The cat lies curled up by the door,", "one paw stretched out upon the floor;"),
    "a dog": ("The dog runs fast, the dog runs free,", "and always he comes back to me;"),
    "a tree": ("The tree stands tall, the tree stands old,", "its leaves have turned from green to gold;"),
    "a bird": ("A bird sits on the highest bough,", "I hear it sing its song just now;"),
    "home": ("A little house, an open door,", "a lamp, a fire, and nothing more;"),
    "the wind": ("The wind goes over hill and plain,", "it comes and goes and comes again;"),
}
POEM_ENDINGS = [
    ("And I sit here and watch it all,", "until the evening shadows fall."), ("I would not change it if I could,", "for all is well and all is good."),
    ("And when the day is nearly through,", "I think of it, and then of you."), ("So close your eyes and dream a while,", "and in the morning wake and smile."),
    ("The world is large and I am small,", "and yet I think I love it all."), ("Come, take my hand and walk with me,", "there is so much for us to see."),
]


def poem(r):
    about = r.choice(list(POEM_SCENES))
    return about, "\n".join([*POEM_SCENES[about], *r.choice(POEM_ENDINGS)])
