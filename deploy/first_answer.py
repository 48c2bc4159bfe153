"""Asks a running server one question and prints the streamed answer as it comes. Standard library only."""

import json
import sys
import urllib.request

QUESTION = "Hello! What are you?"


def main() -> int:
    base = sys.argv[1]
    body = json.dumps({"messages": [{"role": "user", "content": QUESTION}], "stream": True, "temperature": 0, "max_tokens": 100})
    request = urllib.request.Request(
        base + "/v1/chat/completions", data=body.encode(), headers={"Content-Type": "application/json"}
    )
    print(f"\n  you:    {QUESTION}\n  serval: ", end="", flush=True)
    answered = False
    with urllib.request.urlopen(request, timeout=60) as response:
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                print("\nThe server answered with an error:", event["error"]["message"], file=sys.stderr)
                return 1
            for choice in event["choices"]:
                piece = choice["delta"].get("content") or ""
                answered = answered or bool(piece)
                print(piece, end="", flush=True)
    print("\n")
    if not answered:
        print("The server answered without any text.", file=sys.stderr)
    return 0 if answered else 1


if __name__ == "__main__":
    sys.exit(main())
