"""Running test classes as unittest does."""

import io
import os
import re
import sys
import unittest
import warnings

from tests.helpers.leaks import NothingRemains
from tests.helpers.programs import TCP_SERVER, python

SERVER = python(TCP_SERVER.replace("{", "{{").replace("}", "}}"), "{port}")


def run_class(case: type[unittest.TestCase]) -> tuple[unittest.TestResult, list[warnings.WarningMessage]]:
    """Run a test class as unittest does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        result = unittest.TextTestRunner(io.StringIO(), warnings="always").run(suite)
    return result, caught


class MixinCase(NothingRemains):
    def run_class(self, case: type[unittest.TestCase]) -> unittest.TestResult:
        """Run a class that must warn of nothing."""
        result, caught = run_class(case)
        self.assertEqual([str(warning.message) for warning in caught], [])
        return result

    def assert_passes(self, case: type[unittest.TestCase]) -> None:
        result = self.run_class(case)
        self.assertEqual((result.errors, result.failures), ([], []))
        self.assertGreater(result.testsRun, 0)

    def the_error(self, case: type[unittest.TestCase]) -> str:
        result = self.run_class(case)
        self.assertEqual((len(result.errors), result.failures), (1, []))
        return result.errors[0][1]


def masked(text: str) -> str:
    """A text without what differs from run to run: the interpreter, temporary files, ports, pids."""
    text = text.replace(sys.executable, "PYTHON").replace(os.path.basename(sys.executable), "python")
    text = re.sub(r"[^\s(]*/caseexec-[0-9a-f]{16}\.\d+(-\S*?)?\.log", "LOG", text)
    text = re.sub(r"\S*/caseexec-[0-9a-f]{16}\.\d+", "TMP", text)
    text = re.sub(r"\b(pid|port) \d+", r"\1 N", text)
    return re.sub(r"(127\.0\.0\.1:)\d+", r"\1PORT", text)


def the_notes(result: unittest.TestResult) -> list[str]:
    """Of each failure and error of a result, the text."""
    return [text for _, text in (*result.errors, *result.failures)]
