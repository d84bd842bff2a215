"""The examples in the manual and the README are real files, and they pass."""

import os
import pathlib
import re
import shutil
import textwrap
import unittest
from importlib.util import find_spec

from tests.helpers.runs import ROOT, RunCase

EXAMPLES = sorted(pathlib.Path(ROOT, "docs", "examples").glob("test_*.py"))
# A browser is large: where it is not installed, not even CI must have it.
BROWSER = bool(shutil.which("chromedriver") and find_spec("selenium"))


class ExamplesTests(RunCase):
    def test_each_example_passes_and_leaves_nothing(self) -> None:
        self.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        self.assertTrue(EXAMPLES)
        for example in EXAMPLES:
            with self.subTest(example.name):
                if example.name == "test_browser.py" and not BROWSER:
                    self.skipTest("no browser: apt-get install chromium-driver; pip install selenium")
                is_script = "unittest.main()" in example.read_text()
                runner = () if is_script else ("-m", "pytest", "-p", "no:cacheprovider", "-p", "caseexec.pytest_plugin")
                code, output = self.run_python("-W", "error", *runner, str(example))
                self.assertEqual(code, 0, output)
                self.assertIn("OK" if is_script else "2 passed", output)
                self.assertEqual(os.listdir(self.run_tmp), [])

    def test_the_readme_shows_the_quickstart_as_it_is(self) -> None:
        readme = pathlib.Path(ROOT, "README.rst").read_text()
        (block,) = re.findall(r"\.\. code-block:: python\n\n((?:(?:    .*)?\n)+)", readme)
        quickstart = pathlib.Path(ROOT, "docs", "examples", "test_quickstart.py").read_text()
        self.assertEqual(textwrap.dedent(block).strip(), quickstart.strip())


if __name__ == "__main__":
    unittest.main()
