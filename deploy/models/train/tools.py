"""Generates conversations in which the demo model calls tools: a few functions, a question for one of them, the call, its result
told in words; and questions that none of them is for, answered as without.

A kind of function is a row: names it may have, what it says of itself, its parameters, questions, and what its result becomes.
Names and parameters vary more than any list of real tools would, so that the model learns to copy them from what it is given.
"""

import json

from words import ANIMALS, CITIES, COLOURS, DAYS, GROUPS, NAMES, THINGS

MORE_CITIES = ("Oslo Dublin Athens Vienna Prague Warsaw Cairo Nairobi Lima Bogota Toronto Chicago Boston Seattle Denver Mumbai Delhi Tokyo "
               "Kyoto Osaka Seoul Beijing Shanghai Sydney Perth Auckland Istanbul Hamburg Munich Lyon Milan Naples Porto Geneva Basel "
               "Krakow Riga Tallinn Helsinki Bergen Glasgow Leeds Bristol Cardiff Belfast Houston Miami Dallas Havana Quito").split()
SONGS = ["Yesterday", "Imagine", "Hallelujah", "Moon River", "Blue Moon", "Summertime", "Hey Jude", "Greensleeves", "Silent Night"]
ROOMS = ["kitchen", "bedroom", "bathroom", "hall", "garden", "office", "living room", "garage", "attic", "cellar"]
LANGUAGES = ["French", "German", "Spanish", "Italian", "Dutch", "Polish", "Greek", "Danish"]
CURRENCIES = ["euros", "dollars", "pounds", "yen", "francs"]
MESSAGES = ["I am late", "see you soon", "happy birthday", "the train is here", "call me back", "dinner is ready", "good luck",
            "I am at home", "thank you", "we are on our way"]
QUERIES = ["red shoes", "cheap flights", "good restaurants", "old maps", "train times", "cat pictures", "bread recipes",
           "used bikes", "rain boots", "garden tools", "news about bees", "books about stars"]


def clock(r):
    return f"{r.randint(0, 23)}:{r.randint(0, 59):02}"


# Parameters: what they may be called, their type, and values.
PLACE = (["city", "city", "location", "place", "town", "where"], "string", lambda r: r.choice(r.choice([CITIES, MORE_CITIES, MORE_CITIES])))
WHO = (["name", "person", "who", "contact", "to"], "string", lambda r: r.choice(NAMES))
FIRST = (["a", "x", "first", "left"], "number", lambda r: r.randint(2, 9999))
SECOND = (["b", "y", "second", "right"], "number", lambda r: r.randint(2, 9999))
FROM = (["from", "start", "origin", "from_city"], "string", PLACE[2])
TO = (["to", "end", "destination", "to_city"], "string", PLACE[2])
THING = (["item", "thing", "product", "article"], "string", lambda r: r.choice(r.choice([THINGS, ANIMALS, GROUPS["fruits"]])))
TIME = (["time", "at", "clock", "when"], "string", clock)
MINUTES = (["minutes", "length", "duration", "min"], "integer", lambda r: r.randint(1, 90))
ROOM = (["room", "where", "place"], "string", lambda r: r.choice(ROOMS))
QUERY = (["query", "q", "text", "words"], "string", lambda r: r.choice(QUERIES))
MESSAGE = (["text", "message", "body", "content"], "string", lambda r: r.choice(MESSAGES))
SONG = (["title", "song", "name", "track"], "string", lambda r: r.choice(SONGS))
LANGUAGE = (["language", "to", "target", "lang"], "string", lambda r: r.choice(LANGUAGES))
DAY = (["day", "date", "when"], "string", lambda r: r.choice(DAYS))
SIDES = (["sides", "max", "highest", "n"], "integer", lambda r: r.randint(4, 100))
COLOUR = (["colour", "color", "to"], "string", lambda r: r.choice(COLOURS))
AMOUNT = (["amount", "value", "sum"], "number", lambda r: r.randint(2, 900))
CURRENCY = (["currency", "to", "into"], "string", lambda r: r.choice(CURRENCIES))

# Names, descriptions, parameters, questions with {0} and {1} for the values, a result and its telling ({r}).
KINDS = [
    (["time", "current_time", "local_time", "clock", "time_now"], ["The time in a city.", "Get the current time of a place.", "What time it is somewhere.", "Current local time."], [PLACE],
     ["What time is it in {0}?", "What is the time in {0}?", "Tell me the time in {0}.", "What's the time in {0} now?", "How late is it in {0}?",
      "Can you tell me what time it is in {0}?", "Time in {0}?", "I need the time in {0}.", "Give me the current time in {0}.", "Is it late in {0}? What time is it there?",
      "Please tell me the time in {0}.", "Which time is it in {0} right now?", "Could you check the time in {0}?"],
     lambda r: {"time": clock(r)}, "It is {r} in {0}."),
    (["weather", "current_weather", "forecast", "weather_now", "conditions"], ["The weather in a city.", "Get the current weather of a place.", "How the weather is somewhere.", "Weather report."], [PLACE],
     ["What is the weather in {0}?", "How is the weather in {0}?", "What's the weather like in {0}?", "Is it raining in {0}?", "Tell me the weather in {0}.",
      "Weather in {0}?", "Do I need an umbrella in {0}?", "Is it sunny in {0} today?", "Give me the weather report for {0}.", "Can you check the weather in {0}?",
      "What will the weather be in {0}?"],
     lambda r: {"weather": r.choice(["sunny", "cloudy", "rainy", "windy", "foggy", "snowy"])}, "It is {r} in {0}."),
    (["temperature", "degrees", "current_temperature", "heat"], ["The temperature in a city.", "How warm it is somewhere.", "Degrees outside."], [PLACE],
     ["How warm is it in {0}?", "How cold is it in {0}?", "What is the temperature in {0}?", "How many degrees are there in {0}?", "Temperature in {0}?",
      "Tell me the temperature in {0}.", "Is it hot in {0}?"],
     lambda r: {"degrees": r.randint(0, 35)}, "It is {r} degrees in {0}."),
    (["population", "inhabitants", "count_people"], ["How many people live in a city.", "The population of a place."], [PLACE],
     ["How many people live in {0}?", "What is the population of {0}?", "How big is {0}?", "Tell me the population of {0}."],
     lambda r: {"people": r.randint(20, 900) * 1000}, "{r} people live in {0}."),
    (["distance", "route", "how_far", "way"], ["The distance between two cities.", "How far it is from one place to another."], [FROM, TO],
     ["How far is it from {0} to {1}?", "What is the distance from {0} to {1}?", "How many kilometres are between {0} and {1}?", "How long is the way from {0} to {1}?"],
     lambda r: {"kilometres": r.randint(80, 3000)}, "It is {r} kilometres from {0} to {1}."),
    (["multiply", "times", "product", "mul"], ["Multiply two numbers.", "The product of two numbers."], [FIRST, SECOND],
     ["What is {0} times {1}?", "Multiply {0} by {1}.", "How much is {0} * {1}?", "Calculate {0} times {1}.", "What is {0} multiplied by {1}?"],
     None, "{0} times {1} is {r}."),
    (["add", "sum", "plus", "add_numbers"], ["Add two numbers.", "The sum of two numbers."], [FIRST, SECOND],
     ["What is {0} plus {1}?", "Add {0} and {1}.", "How much is {0} + {1}?", "Calculate {0} plus {1}.", "What is the sum of {0} and {1}?"],
     None, "{0} plus {1} is {r}."),
    (["set_alarm", "alarm", "wake", "wake_up"], ["Set an alarm.", "Wake the user at a time."], [TIME],
     ["Wake me at {0}.", "Set an alarm for {0}.", "Please wake me up at {0}.", "Alarm at {0}, please.", "I want to get up at {0}."],
     lambda r: {"status": "set"}, "Your alarm is set for {0}."),
    (["set_timer", "timer", "countdown", "start_timer"], ["Start a timer.", "Count down some minutes."], [MINUTES],
     ["Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "Count down {0} minutes.", "Tell me when {0} minutes are over.", "Timer, {0} minutes."],
     lambda r: {"status": "started"}, "The timer runs for {0} minutes."),
    (["send_message", "message", "text_to", "write_to", "send"], ["Send somebody a message.", "Write a message to a person."], [WHO, MESSAGE],
     ["Send {0} the message: {1}", "Write to {0}: {1}", "Tell {0}: {1}", "Text {0} this: {1}", "Send a message to {0}: {1}"],
     lambda r: {"status": "sent"}, "I have sent the message to {0}."),
    (["phone_number", "find_number", "lookup", "phone_book", "contact"], ["Find a person's phone number.", "Look somebody up in the phone book."], [WHO],
     ["What is the phone number of {0}?", "What is {0}'s number?", "Find the number of {0}.", "How can I call {0}?", "Look up {0} in the phone book."],
     lambda r: {"number": str(r.randint(10000, 99999))}, "The number of {0} is {r}."),
    (["birthday", "date_of_birth", "born"], ["A person's birthday.", "When somebody was born."], [WHO],
     ["When is {0}'s birthday?", "When was {0} born?", "Tell me the birthday of {0}.", "On which day is the birthday of {0}?"],
     lambda r: {"birthday": f"{r.choice(['May', 'June', 'March'])} {r.randint(1, 28)}"}, "The birthday of {0} is {r}."),
    (["search", "web_search", "find", "look_for", "google"], ["Search the web.", "Find pages on the internet."], [QUERY],
     ["Search the web for {0}.", "Search for {0}.", "Look for {0} on the internet.", "Find {0} online.", "Can you search the internet for {0}?"],
     lambda r: {"results": r.randint(2, 90)}, "I found {r} pages about {0}."),
    (["play", "play_music", "play_song", "music", "start_song"], ["Play a song.", "Start some music."], [SONG],
     ["Play {0}.", "Play the song {0}.", "I want to hear {0}.", "Put on {0}, please.", "Can you play {0}?"],
     lambda r: {"status": "playing"}, "Now playing {0}."),
    (["light_on", "lights", "turn_on_light", "lamp"], ["Turn on the light in a room.", "Make a room bright."], [ROOM],
     ["Turn on the light in the {0}.", "Light in the {0}, please.", "It is dark in the {0}.", "Switch on the lamp in the {0}.", "Make light in the {0}."],
     lambda r: {"status": "on"}, "The light in the {0} is on."),
    (["paint", "set_colour", "colour_light", "change_color"], ["Change the colour of the lamp.", "Set the lamp's colour."], [COLOUR],
     ["Make the lamp {0}.", "Change the colour of the lamp to {0}.", "I want {0} light.", "Set the lamp to {0}."],
     lambda r: {"status": "done"}, "The lamp is {0} now."),
    (["price", "cost", "how_much", "find_price"], ["The price of a thing in the shop.", "What something costs."], [THING],
     ["How much is a {0}?", "What does a {0} cost?", "What is the price of the {0}?", "Tell me the price of a {0}.", "How expensive is the {0}?"],
     lambda r: {"price": r.randint(1, 90)}, "The {0} costs {r} euros."),
    (["add_item", "shopping_list", "put_on_list", "remember"], ["Put something on the shopping list.", "Add a thing to the list."], [THING],
     ["Put {0} on my shopping list.", "Add {0} to the list.", "I need to buy a {0}, note it.", "Remember to buy a {0}."],
     lambda r: {"status": "added"}, "The {0} is on your list."),
    (["translate", "translation", "to_language"], ["Translate a text.", "Say something in another language."], [MESSAGE, LANGUAGE],
     ["Translate \"{0}\" into {1}.", "How do you say \"{0}\" in {1}?", "What is \"{0}\" in {1}?"],
     lambda r: {"text": "..."}, "In {1} that is: {r}"),
    (["calendar", "appointments", "events", "agenda"], ["What is in the calendar on a day.", "The plans of a day."], [DAY],
     ["What do I have to do on {0}?", "What is in my calendar on {0}?", "Am I free on {0}?", "Tell me my plans for {0}."],
     lambda r: {"events": r.choice(["nothing", "dinner", "school", "the dentist", "a walk"])}, "On {0} there is {r}."),
    (["roll", "dice", "random_number", "draw_number"], ["Roll a die.", "A random number up to a limit."], [SIDES],
     ["Roll a die with {0} sides.", "Give me a random number up to {0}.", "Draw a number from 1 to {0}.", "Pick a random number up to {0}."],
     lambda r: {"number": r.randint(1, 4)}, "The number is {r}."),
    (["convert", "exchange", "change_money", "currency"], ["Change money into another currency.", "Convert euros."], [AMOUNT, CURRENCY],
     ["How much are {0} euros in {1}?", "Convert {0} euros to {1}.", "Change {0} euros into {1}.", "What are {0} euros in {1}?"],
     lambda r: {"amount": r.randint(2, 900)}, "{0} euros are {r} {1}."),
]
PREFIXES = ["", "", "get_", "get_", "get_", "get_current_", "fetch_", "find_", "my_", "do_", "tool_", "api_", "call_", "show_"]
SUFFIXES = [""] * 8 + ["_tool", "_2", "_of", "_api", "_now", "_for"]


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def function(r, kind):
    """One function of a kind, with a name and parameters of its own: OpenAI's form, and what its parameters draw."""
    names, descriptions, params, *_ = kind
    name = r.choice(names)
    if "_" not in name or r.random() < 0.3:
        prefix = r.choice(PREFIXES)
        name = prefix + name if not name.startswith(prefix) or not prefix else name
    name += r.choice(SUFFIXES)
    if r.random() < 0.12:
        name = camel(name)
    properties, keys = {}, []
    for choices, type_, _ in params:
        key = r.choice([c for c in choices if c not in properties])
        keys.append(key)
        properties[key] = {"type": type_}
        if r.random() < 0.3:
            properties[key]["description"] = r.choice([f"The {key}.", "What it is for.", f"Which {key}, for example one that the user names."])
    if r.random() < 0.12:  # one that no question speaks of
        properties[r.choice(["unit", "format", "limit", "verbose"])] = {"type": r.choice(["string", "integer", "boolean"])}
    made = {"name": name, "parameters": {"type": "object", "properties": properties, "required": keys}}
    if r.random() < 0.85:
        made["description"] = r.choice(descriptions)
    return {"type": "function", "function": made}, keys


def call_of(name, arguments):
    return {"role": "assistant", "content": None,
            "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


def tool_dialogue(r, other_turn):
    """(tools, messages): some end with a call. `other_turn` draws a question and its answer, as messages, that need no tool."""
    kinds = r.sample(KINDS, r.choice([1, 2, 2, 3, 3, 4, 4]))
    functions = [function(r, kind) for kind in kinds]
    order = list(range(len(kinds)))
    r.shuffle(order)
    tools = [functions[i][0] for i in order]
    messages = []
    if r.random() < 0.2:
        messages.append({"role": "system", "content": r.choice(["You are a helpful assistant.", "Use the tools where they help.", "Answer briefly.",
                                                               "You are Serval, a small demo model."])})
    turns = r.choice([1, 2, 3, 4, 5, 6])  # many: what there is to learn is which function a question is for
    for turn in range(turns):
        if r.random() < 0.15:
            messages += other_turn(r)
            continue
        at = r.randrange(len(kinds))
        _, _, params, questions, result, telling = kinds[at]
        values = [draw(r) for _, _, draw in params]
        question = r.choice(questions).format(*values)
        if r.random() < 0.1:
            question = r.choice(["Hello! ", "Hi. ", "Please help me. ", "One more thing: "]) + question
        if r.random() < 0.1 and question[-1] in ".?":
            question = question[:-1]
        name = functions[at][0]["function"]["name"]
        messages += [{"role": "user", "content": question}, call_of(name, dict(zip(functions[at][1], values)))]
        if turn + 1 < turns or r.random() < 0.5:
            if result is None:
                told = values[0] * values[1] if "times" in telling else values[0] + values[1]
                content = r.choice([json.dumps({"result": told}), str(told)])
            else:
                given = result(r)
                told = next(iter(given.values()))
                content = json.dumps(given) if r.random() < 0.7 else str(told)
            messages += [{"role": "tool", "content": content}, {"role": "assistant", "content": telling.format(*values, r=told)}]
    return tools, messages


def tool_dialogues(r, n, banned, bare, other_turn):
    """`n` conversations none of whose questions is in `banned`."""
    made = 0
    while made < n:
        tools, messages = tool_dialogue(r, other_turn)
        if len({t["function"]["name"] for t in tools}) < len(tools):
            continue
        if any(m["role"] == "user" and bare(m["content"]) in banned for m in messages):
            continue
        made += 1
        yield tools, messages
