"""What a suite is worth: spoils the code it tests in one place at a time, and expects it to fail. A mutation that survives, or
that no longer finds its place in the source, fails this program.

All mutations of a table are compiled at once, each behind a switch that the environment sets, so that a mutant costs one run
of the tests and no compilation. A table (scheduler.py, …) is a module with
    SOURCES    the .cc files to compile in place of the library's own
    MUTATIONS  rows of (file, what stands there once, what instead, gtest filter of tests that should mind)
An expression is replaced by an expression; what ends with ';' or '}' is a statement and is replaced by one.

Usage: mutate.py TABLE SOURCE_DIR WORK_DIR COMPILER [FLAG...] -- TEST_OBJECT_OR_LIBRARY..."""

import collections
import concurrent.futures
import importlib
import os
import pathlib
import subprocess
import sys

SWITCH = """#pragma once
#include <cstdlib>
namespace serval {
// The mutant that this run is.
inline const int kMutant = std::getenv("SERVAL_MUTANT") ? std::atoi(std::getenv("SERVAL_MUTANT")) : -1;
}  // namespace serval
"""
TIMEOUT_S = 60


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


def spoil_tree(root: pathlib.Path, work: pathlib.Path, mutations) -> list[str]:
    """Writes every mutated file below `work`; returns what is wrong with the table."""
    wrong = []
    by_file = collections.defaultdict(lambda: collections.defaultdict(list))
    for mutant, (file, what, instead, _) in enumerate(mutations):
        by_file[file][what].append((mutant, instead))
    for file, places in by_file.items():
        text = (root / file).read_text(encoding="utf-8")
        for what, replacements in places.items():
            if text.count(what) != 1:
                wrong.append(f"'{what}' stands {text.count(what)} times in {file}, not once")
        # Longest first, so that a place is not found again in what was put there for another.
        marks = {}
        for number, what in enumerate(sorted(places, key=len, reverse=True)):
            marks[f"\0{number}\0"] = spoiled(what, places[what])
            text = text.replace(what, f"\0{number}\0")
        for mark, replacement in marks.items():
            text = text.replace(mark, replacement)
        target = work / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return wrong


def must_run(command: list[str]):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")


def survives(program: pathlib.Path, mutant: int, selection: str) -> bool:
    command = [str(program), f"--gtest_filter={selection}", "--gtest_brief=1", "--gtest_fail_fast"]
    try:
        run = subprocess.run(command, env={**os.environ, "SERVAL_MUTANT": str(mutant)}, capture_output=True, check=False, timeout=TIMEOUT_S)
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
        selections = sorted({row[3] for row in table.MUTATIONS})
        for selection, passes in zip(selections, pool.map(lambda s: survives(program, -1, s), selections)):
            if not passes:
                sys.exit(f"without a mutation the tests fail: {selection}")
        alive = list(pool.map(lambda n: survives(program, n, table.MUTATIONS[n][3]), range(len(table.MUTATIONS))))
    for mutant, (file, what, instead, _) in enumerate(table.MUTATIONS):
        first = [text.strip().splitlines()[0] if text.strip() else "nothing" for text in (what, instead)]
        print(f"{mutant}: {'SURVIVED' if alive[mutant] else 'caught'}: {file}: {first[0]} -> {first[1]}")
    print(f"{len(alive) - sum(alive)} of {len(alive)} mutations of {name} were caught")
    return 1 if any(alive) else 0


if __name__ == "__main__":
    sys.exit(main())
