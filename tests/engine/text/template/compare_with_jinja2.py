"""Renders cases with Python's Jinja2 and with the built chat_template_render, and reports every difference.

Usage: python compare_with_jinja2.py RENDER [--language] [--templates FOLDER] [--random] [--count N --seed S]
  --language   the cases of language_cases.jsonl
  --templates  every *.jinja of a folder over random conversations
  --random     random templates
Cases that Python refuses count as agreed when we refuse them too, and are listed as tolerated otherwise. Three differences are known
and only counted: Python prints the addresses of generators and functions; it never runs a map or select whose result nobody reads; and it
slices a number, if that is a constant of the template, to nothing, where a variable fails.
"""

import argparse
import copy
import json
import pathlib
import random
import re
import subprocess
import warnings

import random_templates
from reference import render

WORDS = ["hello", "", " ", "naïve 😀", "<think>a</think>b", "a\n\nb ", "  lead", "{\"a\": 1}", "</think>", "quote \" ' \\", "<|im_end|>",
         "Καλημέρα\t", "x" * 40, "tool", "/no_think", "/think", "<b>&</b>", "1", "line\r\nend", "[TOOL_CALLS]", "<think>\nopen"]


def random_json(r, depth=0):
    kind = r.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return r.choice([None, True, False])
    if kind == 1:
        return r.choice([0, 1, -7, 2**31, 2**53 + 1])
    if kind == 2:
        return r.choice([0.5, 1.0, 1e-9, 1e30, -2.25, 123456.789])
    if kind <= 5:
        return r.choice(WORDS)
    if kind == 6:
        return [random_json(r, depth + 1) for _ in range(r.randrange(4))]
    return {r.choice(["a", "b", "type", "items", "name", "ключ"]): random_json(r, depth + 1) for _ in range(r.randrange(4))}


def random_schema(r, depth=0):
    schema = {"type": r.choice(["string", "integer", "number", "boolean", "array", "object", ["string", "null"], "null"])}
    if r.random() < 0.6:
        schema["description"] = r.choice(WORDS)
    if r.random() < 0.2:
        schema["enum"] = r.sample(["a", "b", "c d"], r.randrange(1, 4))
    if r.random() < 0.15:
        schema["default"] = random_json(r, 2)
    if r.random() < 0.15:
        schema["nullable"] = r.choice([True, False])
    if depth < 3:
        if schema["type"] == "object" or r.random() < 0.1:
            names = r.sample(["city", "unit", "items", "n", "keys", "type"], r.randrange(4))
            schema["properties"] = {name: random_schema(r, depth + 1) for name in names}
            if r.random() < 0.7:
                schema["required"] = names[: r.randrange(len(names) + 1)]
        if schema["type"] == "array":
            schema["items"] = random_schema(r, depth + 1)
        if r.random() < 0.1:
            schema["oneOf"] = [random_schema(r, depth + 1) for _ in range(2)]
            schema["anyOf"] = [random_schema(r, depth + 1) for _ in range(2)]
    return schema


def random_tool(r):
    function = {"name": r.choice(["get_weather", "f", "search.web"]), "description": r.choice(WORDS)}
    if r.random() < 0.9:
        function["parameters"] = {"type": "object", "properties": {n: random_schema(r) for n in r.sample(["a", "b", "items", "query"], r.randrange(4))},
                                  "required": r.sample(["a", "b"], r.randrange(3))}
    if r.random() < 0.2:
        function["return"] = random_schema(r)
    if r.random() < 0.1:
        function["strict"] = True
    return {"type": "function", "function": function} if r.random() < 0.9 else function


def random_content(r):
    if r.random() < 0.85:
        return r.choice(WORDS) + r.choice(["", " " + r.choice(WORDS)])
    if r.random() < 0.2:
        return None
    return [r.choice([{"type": "text", "text": r.choice(WORDS)}, {"type": "image"}, {"type": "image_url", "image_url": {"url": "u"}}, {"type": "audio"}])
            for _ in range(r.randrange(3))]


def random_messages(r):
    messages = []
    if r.random() < 0.5:
        messages.append({"role": r.choice(["system", "system", "developer"]), "content": random_content(r)})
    for turn in range(r.randrange(1, 5)):
        messages.append({"role": "user", "content": random_content(r)})
        answer = {"role": "assistant", "content": random_content(r)}
        if r.random() < 0.3:
            answer[r.choice(["reasoning_content", "thinking", "reasoning"])] = r.choice(WORDS)
        if r.random() < 0.35:
            arguments = {name: random_json(r, 1) for name in r.sample(["city", "n", "items", "flag"], r.randrange(4))}
            calls = [{"type": "function", "id": r.choice(["abcdef123", "call_1", "functions.f:0"]),
                      "function": {"name": "f", "arguments": arguments if r.random() < 0.8 else json.dumps(arguments)}}
                     for _ in range(r.choice([1, 1, 1, 2]))]
            if r.random() < 0.1:
                calls = [call["function"] for call in calls]
            answer["tool_calls"] = calls
            messages.append(answer)
            for call in calls:
                result = {"role": "tool", "content": random_content(r) if r.random() < 0.8 else random_json(r)}
                if r.random() < 0.7:
                    result["tool_call_id"] = call.get("id", "abcdef123")
                if r.random() < 0.5:
                    result["name"] = "f"
                messages.append(result)
            if r.random() < 0.5:
                messages.append({"role": "assistant", "content": random_content(r)})
        elif turn or r.random() < 0.7:
            messages.append(answer)
    if r.random() < 0.05:
        r.shuffle(messages)
    return messages


def random_context(r):
    context = {"messages": random_messages(r), "tools": None, "documents": None, "add_generation_prompt": r.random() < 0.5,
               "bos_token": "<s>", "eos_token": "</s>"}
    if r.random() < 0.4:
        context["tools"] = [random_tool(r) for _ in range(r.randrange(1, 4))]
    if r.random() < 0.1:
        context["documents"] = [{"title": "t", "text": r.choice(WORDS)} for _ in range(2)]
    for name, values in {"enable_thinking": [True, False], "thinking": [True, False], "reasoning_effort": ["low", "high"], "date_string": ["today"],
                         "builtin_tools": [["browser"], ["python", "browser"]], "xml_tools": [True], "thinking_budget": [0, 512, 1000],
                         "tools_in_user_message": [False], "model_identity": ["I"], "custom_tools": [[]], "controls": [{"length": "long"}]}.items():
        if r.random() < 0.15:
            context[name] = r.choice(values)
    return context


def template_cases(folder, count, seed):
    r = random.Random(seed)
    templates = sorted(pathlib.Path(folder).glob("*.jinja"))
    for i in range(count):
        path = templates[i % len(templates)]
        yield path.name, path.read_text(encoding="utf-8"), random_context(r)


def language_cases():
    for line in pathlib.Path(__file__).with_name("language_cases.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["template"], row["template"], row["context"]


def random_cases(count, seed):
    r = random.Random(seed)
    for _ in range(count):
        source = random_templates.template(r)
        yield source, source, random_templates.CONTEXT


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("render")
    parser.add_argument("--language", action="store_true")
    parser.add_argument("--templates")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=10)
    options = parser.parse_args()

    cases = list(language_cases()) if options.language else []
    if options.templates:
        cases += template_cases(options.templates, options.count, options.seed)
    if options.random:
        cases += random_cases(options.count, options.seed)
    lines = "".join(json.dumps({"template": source, "context": context}) + "\n" for _, source, context in cases)
    ours = subprocess.run([options.render], input=lines, capture_output=True, text=True, check=True).stdout.split("\n")

    statuses = {"ok": "ok", "template_raised": "raised"}
    counts = {"ok": 0, "raised": 0, "refused": 0, "tolerated": 0, "address": 0, "unread": 0, "sliced": 0, "different": 0}
    warnings.simplefilter("ignore")
    compiled = {}
    for (name, source, context), line in zip(cases, ours):
        mine = json.loads(line)
        status, text = render(source, copy.deepcopy(context), compiled, optimized=False)
        agreed = statuses.get(mine["status"], "error") == status and (status == "error" or mine["text"] == text)
        if agreed:
            counts["refused" if status == "error" else status] += 1
        elif re.search(" at 0x|<built-in|<function|<class", text, re.I):
            counts["address"] += 1
        elif status == "ok" and mine["status"] == "template_error" and re.search(r"\b(map|select|reject|selectattr|rejectattr|items|batch|slice|unique)\b", source):
            counts["unread"] += 1
        elif status == "ok" and "cannot be sliced" in mine["text"]:
            counts["sliced"] += 1
        elif status == "error":
            counts["tolerated"] += 1
            if counts["tolerated"] <= options.show:
                print("TOLERATED", repr(name), "\n  python:", text, "\n  serval:", repr(mine["text"][:300]))
        else:
            counts["different"] += 1
            if counts["different"] <= options.show:
                at = next((i for i, (a, b) in enumerate(zip(text, mine["text"])) if a != b), min(len(text), len(mine["text"])))
                print("DIFFERENT", repr(name), "at", at, "\n  python:", status, repr(text[max(0, at - 60):at + 200]),
                      "\n  serval:", mine["status"], repr(mine["text"][max(0, at - 60):at + 200]))
    print(len(cases), "cases:", counts)


if __name__ == "__main__":
    main()
