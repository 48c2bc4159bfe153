"""What a suite is worth: spoils the code it tests in one place at a time, and expects it to fail. A mutation that survives, or
that no longer finds its place in the source, fails this program.

All mutations of a table are compiled at once, each behind a switch that the environment sets, so that a mutant costs one run
of the tests and no compilation. A table (scheduler.py, …) is a module with
    SOURCES    the .cc files to compile in place of the library's own
    MUTATIONS  rows of (file, what stands there once, what instead, gtest filter of tests that should mind)
Where only a part of what stands there is to be replaced, that part stands in «». An expression is replaced by an expression; what
ends with ';' or '}' is a statement and is replaced by one.

Usage: mutate.py TABLE SOURCE_DIR WORK_DIR COMPILER [FLAG...] -- TEST_OBJECT_OR_LIBRARY..."""

import collections
import concurrent.futures
import importlib
import os
import pathlib
import subprocess
import sys
import time

SWITCH = """#pragma once
#include <cstdlib>
namespace serval {
// The mutant that this run is.
inline const int kMutant = std::getenv("SERVAL_MUTANT") ? std::atoi(std::getenv("SERVAL_MUTANT")) : -1;
}  // namespace serval
"""


def spoiled(original: str, replacements: list[tuple[int, str]]) -> str:
    if original.rstrip().endswith((";", "}")):
        text = ""
        for mutant, replacement in replacements:
            text += f"if (::serval::kMutant == {mutant}) {{ {replacement} }} else "
        return f"{text}{{ {original} }}"
    text = f"({original})"
    for mutant, replacement in replacements:
        text = f"(::serval::kMutant == {mutant} ? ({replacement}) : {text})"
    return text


def place_of(what: str) -> tuple[str, str, str]:
    """What of the text stays before it, is replaced, and stays behind it."""
    before, _, rest = what.rpartition("«")
    inside, _, after = rest.partition("»")
    return before, inside, after


def spoil_tree(root: pathlib.Path, work: pathlib.Path, mutations) -> list[str]:
    """Writes every mutated file below `work`; returns what is wrong with the table."""
    wrong = []
    by_file = collections.defaultdict(lambda: collections.defaultdict(list))
    for mutant, (file, what, instead, _) in enumerate(mutations):
        by_file[file][place_of(what)].append((mutant, instead))
    for file, places in by_file.items():
        text = (root / file).read_text(encoding="utf-8")
        pieces = []
        for (before, inside, after), replacements in places.items():
            whole = before + inside + after
            if text.count(whole) != 1:
                wrong.append(f"'{whole}' stands {text.count(whole)} times in {file}, not once")
            pieces.append((text.find(whole) + len(before), inside, spoiled(inside, replacements)))
        for at, inside, replacement in sorted(pieces, reverse=True):  # from the end, so that places stay where they are
            text = text[:at] + replacement + text[at + len(inside):]
        target = work / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return wrong


def must_run(command: list[str]):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")


def passes(program: pathlib.Path, mutant: int, selection: str, timeout_s: float | None = None) -> bool:
    command = [str(program), f"--gtest_filter={selection}", "--gtest_brief=1", "--gtest_fail_fast"]
    try:
        run = subprocess.run(command, env={**os.environ, "SERVAL_MUTANT": str(mutant)}, capture_output=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def main() -> int:
    split = sys.argv.index("--")
    name, root, work, compiler, *flags = sys.argv[1:split]
    linked = sys.argv[split + 1:]
    table = importlib.import_module(name)
    root, work = pathlib.Path(root), pathlib.Path(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / "mutant.h").write_text(SWITCH, encoding="utf-8")
    wrong = spoil_tree(root, work, table.MUTATIONS)
    if wrong:
        sys.exit("\n".join(wrong))

    def compile_one(source: str) -> str:
        path, target = work / source, work / (source.replace("/", "_") + ".o")
        must_run([compiler, "-std=c++20", "-O1", "-ffp-contract=off", *flags, "-include", str(work / "mutant.h"), f"-I{work}", f"-I{root}", "-c",
                  str(path if path.exists() else root / source), "-o", str(target)])
        return str(target)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, table.SOURCES))
        program = work / "mutants"
        must_run([compiler, *objects, *linked, "-o", str(program)])
        timeouts = {}
        for selection in sorted({row[3] for row in table.MUTATIONS}):
            began = time.monotonic()
            if not passes(program, -1, selection):
                sys.exit(f"without a mutation the tests fail: {selection}")
            timeouts[selection] = 10 + 3 * (time.monotonic() - began)  # a mutant that is longer at it goes round for ever
        alive = list(pool.map(lambda n: passes(program, n, table.MUTATIONS[n][3], timeouts[table.MUTATIONS[n][3]]), range(len(table.MUTATIONS))))
    for mutant, (file, what, instead, _) in enumerate(table.MUTATIONS):
        first = [text.strip().splitlines()[0] if text.strip() else "nothing" for text in (what, instead)]
        print(f"{mutant}: {'SURVIVED' if alive[mutant] else 'caught'}: {file}: {first[0]} -> {first[1]}")
    print(f"{len(alive) - sum(alive)} of {len(alive)} mutations of {name} were caught")
    return 1 if any(alive) else 0


if __name__ == "__main__":
    sys.exit(main())
