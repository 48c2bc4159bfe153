"""Adds up the JUnit reports in a folder: prints every skip with its reason, every failure, and one last line of totals."""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def main() -> int:
    passed = failed = skipped = 0
    for report in sorted(pathlib.Path(sys.argv[1]).glob("*.xml")):
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name = f"{report.stem}: {case.get('name')}"
            problem = case.find("failure") if case.find("failure") is not None else case.find("error")
            skip = case.find("skipped")
            if problem is not None or case.get("status") == "fail":
                failed += 1
                print(f"FAILED  {name}")
            elif skip is not None:
                skipped += 1
                output = (case.findtext("system-out") or "").splitlines()
                reasons = [line.strip() for line in output if line.strip() and not line.startswith(("[", "Note:", "Running main"))]
                print(f"skipped {name}: {' '.join(reasons[-1:]) or skip.get('message')}")
            else:
                passed += 1
    print(f"== {passed} tests passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
