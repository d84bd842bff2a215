"""A run within a service of another run (a suite that tests a test suite): the outer's end leaves nothing of the inner."""

import os
import signal
import unittest

from tests.helpers.leaks import alive, soon
from tests.helpers.runs import RunCase

# Its service is deaf; what stops that leaves a file.
INNER = """
    import sys, time
    from caseexec.scopes import Launch
    from caseexec.service import OutputService

    DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    service = OutputService([sys.executable, "-c", DEAF, "{tmp}"], banner="up", stop_command=["touch", sys.argv[1]])
    launch = Launch(service, "inner")
    launch.start()
    print("inner is up", flush=True)
    time.sleep(300)
"""
OUTER = """
    import os, sys
    from caseexec import OutputExecutor

    executor = OutputExecutor([*sys.argv[3:], sys.executable, "inner.py", sys.argv[2]], "inner is up").start()
    print(executor.living(), flush=True)
    exec(sys.argv[1])
"""
ENDS = {
    "killed": "executor.kill()",
    "killed without a wait": "executor.kill(wait=False)",
    "stopped": "executor.stop()",
    "left to the exit": "",
    "its run killed": "os.kill(os.getpid(), 9)",
    "its run ended without a word": "os._exit(0)",
}


class NestedTests(RunCase):
    def setUp(self) -> None:
        super().setUp()
        self.write("inner.py", INNER)
        self.write("outer.py", OUTER)

    def check(self, end: str, *before: str) -> None:
        stopped = self.path("stopped")
        process = self.begin("outer.py", end, stopped, *before)
        pids = [int(pid) for pid in self.line(process).strip("[]\n").split(", ")]
        self.assertGreater(len(pids), 2, "the inner run, its reaper and its service")
        self.assertIn(process.wait(30), (0, -signal.SIGKILL))
        self.assertTrue(soon(lambda: not any(map(alive, pids))), "processes remain")
        self.assertTrue(soon(lambda: self.files() == []), self.files())
        self.assertTrue(os.path.exists(stopped), "the reaper of the inner run did not stop its service")
        os.unlink(stopped)

    def files(self) -> list[str]:
        """What is in the temporary directory, but for the directory of the records."""
        found = [name for _, directories, files in os.walk(self.run_tmp) for name in (*directories, *files)]
        return [name for name in found if name != f"caseexec-{os.getuid()}"]

    def test_nothing_of_the_inner_run_remains(self) -> None:
        for switch in ("1", "0"):
            for how, end in ENDS.items():
                with self.subTest(how, cgroup=switch):
                    self.environment["CASEEXEC_CGROUP"] = switch
                    self.check(end)

    def test_nor_of_one_that_has_lost_the_mark_of_the_outer(self) -> None:
        # As tox and sudo take most of the environment away.
        for end in ("executor.kill()", "os.kill(os.getpid(), 9)"):
            with self.subTest(end):
                self.check(end, "env", "-u", "CASEEXEC_MARK")


if __name__ == "__main__":
    unittest.main()
