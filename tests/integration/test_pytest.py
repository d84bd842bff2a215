"""Services in the workers of pytest-xdist."""

import json
import os
import re
import site
import unittest
import venv
from importlib.util import find_spec

from tests.test_pytest_plugin import PluginCase

SUITE = """
    import json, sys

    class It(ServicesMixin, unittest.TestCase):
        own = DECLARED.replace(scope="module")

        def test_it(self): note(self.own)

    def note(server):
        with open(os.environ["PYTEST_XDIST_WORKER"], "a") as file:
            print(json.dumps([server.port, server.pid, server.log_path, sys.executable]), file=file)

    @pytest.mark.parametrize("number", range(4))
    def test_that(number, shared):
        note(shared)

    def test_last(shared):
        raise ConnectionError
"""


@unittest.skipUnless(find_spec("xdist"), "pip install pytest-xdist")
class XdistTests(PluginCase):
    def setUp(self) -> None:
        super().setUp()
        self.suite(
            conftest='shared = service_fixture(DECLARED.replace(scope="session"))',
            **dict.fromkeys(("test_a", "test_b", "test_c"), SUITE),
        )

    def run_xdist(self, *options: str, workers: int) -> str:
        """Run the suite, and look at what each worker had."""
        output = self.run_pytest("-p", "xdist", *options, "--caseexec-log-dir", "logs", code=1, passed=15, failed=3)
        self.assertIn("services: python", output, "at the end, as a worker's header is shown to nobody")
        self.assertEqual(output.count("- Captured output of shared (python"), 3, output)
        self.assertEqual(len([name for name in os.listdir(self.tmp) if name.startswith("gw")]), workers)
        places = set()
        for number in range(workers):
            noted = self.noted(f"gw{number}")
            self.assertEqual(len({log for *_, log, _ in noted if f"-gw{number}-conftest.shared.log" in log}), 1, noted)
            for _, _, log, _ in noted:
                self.assertRegex(log, f"logs/[0-9a-f]+-gw{number}-")
            places |= {(port, pid) for port, pid, _, _ in noted}
        self.assertEqual(len({port for port, _ in places}), len(places), places)
        return output

    def noted(self, worker: str) -> list[tuple[int, int, str, str]]:
        with open(self.path(worker)) as file:
            return [json.loads(line) for line in file]

    def test_each_worker_has_its_own(self) -> None:
        self.run_xdist("-n4", "--dist", "load", workers=4)

    def test_so_it_is_where_a_class_or_a_file_has_one_worker(self) -> None:
        self.run_xdist("-n2", "--dist", "loadscope", workers=2)
        for worker in ("gw0", "gw1"):
            os.remove(self.path(worker))
        self.run_xdist("-n2", "--dist", "loadfile", workers=2)

    def test_so_it_is_where_workers_of_another_interpreter_take_tests_from_each_other(self) -> None:
        other = self.path("other")
        venv.create(other, symlinks=True)  # Of the same version: xdist has such workers use its own sys.path.
        packages = next(filter(os.path.isdir, site.getsitepackages([other])))  # Debian names more than there are.
        with open(os.path.join(packages, "ours.pth"), "w") as file:
            file.write("\n".join(site.getsitepackages()))
        python = os.path.join(other, "bin", "python")
        self.run_xdist("--dist", "worksteal", "--tx", f"2*popen//python={python}", workers=2)
        self.assertEqual({executable for *_, executable in self.noted("gw0") + self.noted("gw1")}, {python})

    def test_the_record_tells_which_worker_has_what(self) -> None:
        self.suite(test_d="""
            import subprocess, sys

            def test_it(shared):
                for option in ([], ["--json"]):
                    output = subprocess.run([sys.executable, "-m", "caseexec", "ps", *option], capture_output=True, text=True)
                    with open(f"ps{len(option)}", "w") as file:
                        file.write(output.stdout)
        """)  # fmt: skip
        output = self.run_pytest("-p", "xdist", "-n1", "test_d.py", "--caseexec-keep", passed=1)
        with open(self.path("ps0")) as file:
            table = file.read()
        self.assertRegex(table, r"RUN +STATE +WORKER +TEST CLASS +SERVICE")
        self.assertRegex(
            table, r"[0-9a-f]{16} +alive +gw0 +conftest +conftest.shared \(TCPExecutor|alive +gw0 +conftest"
        )
        with open(self.path("ps1")) as file:
            (run,) = [run for run in json.load(file) if run["paths"][0].startswith(self.run_tmp)]
        self.assertEqual(run["worker"], "gw0")
        (kept,) = re.findall(r"^\[gw0\] conftest.shared: (.*)$", output, re.M)
        self.assertRegex(kept, r"-gw0-conftest.shared.log$")
        self.assertTrue(os.path.exists(kept))
