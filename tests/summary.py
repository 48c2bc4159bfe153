"""Adds up the JUnit reports of suites: prints every skip with its reason, every failure, and one last line of totals.

Usage: summary.py FOLDER SUITE [SUITE ...]; a suite's report is FOLDER/SUITE.xml. One whose report is missing, unreadable or holds
no test that ran counts as failed: a suite that could not start must not look like one that had nothing to say."""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases(report: pathlib.Path) -> list:
    try:
        return list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []


def main() -> int:
    folder, suites = pathlib.Path(sys.argv[1]), sys.argv[2:]
    passed = failed = skipped = 0
    for suite in suites:
        ran = 0
        for case in cases(folder / f"{suite}.xml"):
            name = f"{suite}: {case.get('name')}"
            problem = case.find("failure") if case.find("failure") is not None else case.find("error")
            skip = case.find("skipped")
            if problem is not None or case.get("status") == "fail":
                failed += 1
                ran += 1
                print(f"FAILED  {name}")
            elif skip is not None:
                skipped += 1
                output = (case.findtext("system-out") or "").splitlines()
                reasons = [line.strip() for line in output if line.strip() and not line.startswith(("[", "Note:", "Running main"))]
                print(f"skipped {name}: {' '.join(reasons[-1:]) or skip.get('message')}")
            else:
                passed += 1
                ran += 1
        if ran == 0:
            failed += 1
            print(f"FAILED  {suite}: no test of this suite ran")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
