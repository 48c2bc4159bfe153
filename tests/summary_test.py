"""Tests of summary.py on reports written here: what it counts as failed, and its last line. Run by CTest."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SUMMARY = pathlib.Path(__file__).with_name("summary.py")
PASSED = '<testsuite><testcase name="a"/></testsuite>'
FAILED = '<testsuite><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>'
SKIPPED = '<testsuite><testcase name="a"><skipped message="no GPU"/></testcase></testsuite>'


class Summary(unittest.TestCase):
    def run_on(self, reports, *suites):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in reports.items():
                (pathlib.Path(folder) / f"{name}.xml").write_text(text)
            run = subprocess.run([sys.executable, SUMMARY, folder, *suites], capture_output=True, text=True, check=False)
        return run.returncode, run.stdout.splitlines()

    def test_suites_that_passed_are_added_up(self):
        self.assertEqual(self.run_on({"one": PASSED, "two": PASSED}, "one", "two"), (0, ["2 passed, 0 failed, 0 skipped"]))

    def test_a_failure_is_named_and_fails_the_run(self):
        code, lines = self.run_on({"one": FAILED}, "one")
        self.assertEqual((code, lines), (1, ["FAILED  one: b", "1 passed, 1 failed, 0 skipped"]))

    def test_a_suite_without_a_report_has_failed_in_words(self):
        code, lines = self.run_on({"one": PASSED}, "one", "two")
        self.assertEqual((code, lines), (1, ["FAILED  two: no test of this suite ran", "1 passed, 1 failed, 0 skipped"]))

    def test_an_empty_or_broken_report_has_failed_in_words(self):
        for text in ("<testsuite/>", "", "<testsuite><testcase"):
            code, lines = self.run_on({"one": text}, "one")
            self.assertEqual((code, lines[0]), (1, "FAILED  one: no test of this suite ran"))

    def test_a_suite_of_skips_alone_ran_no_test(self):
        code, lines = self.run_on({"one": SKIPPED}, "one")
        self.assertEqual((code, lines), (1, ["skipped one: a: no GPU", "FAILED  one: no test of this suite ran", "0 passed, 1 failed, 1 skipped"]))


if __name__ == "__main__":
    unittest.main()
