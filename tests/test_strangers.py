import os
import subprocess
from unittest import mock

from caseexec import ports, processes
from caseexec.group import ProcessGroup
from caseexec.registry import current_run
from caseexec.strangers import find_stranger
from tests.helpers.leaks import NothingRemains, clock_is_after, soon
from tests.helpers.programs import SLEEP, TCP_SERVER, python


class FindStrangerTests(NothingRemains):
    def spawn(self, command, **popen) -> ProcessGroup:
        made = ProcessGroup(current_run().new_mark())
        self.addCleanup(made.kill)
        made.spawn(command, env={**os.environ, processes.MARK: made.mark}, **popen)
        return made

    def listening(self, port: int) -> list[ports.Listener]:
        self.assertTrue(soon(lambda: ports.listeners("127.0.0.1", port)))
        return ports.listeners("127.0.0.1", port)

    def test_our_own_listener_is_no_stranger(self) -> None:
        port = self.lease()
        made = self.spawn(python(TCP_SERVER, port), stdout=subprocess.DEVNULL)
        self.assertIsNone(find_stranger(made, self.listening(port)))

    def test_a_childs_listener_is_ours_too(self) -> None:
        port = self.lease()
        made = self.spawn(["sh", "-c", '"$0" "$@" & wait', *python(TCP_SERVER, port)], stdout=subprocess.DEVNULL)
        self.assertIsNone(find_stranger(made, self.listening(port)))

    def test_a_listener_that_is_older_than_our_command_is_a_stranger(self) -> None:
        port = self.lease()
        other = self.spawn(python(TCP_SERVER, port), stdout=subprocess.DEVNULL)
        found = self.listening(port)
        # Start times are told in hundredths of a second.
        self.assertTrue(soon(lambda: clock_is_after(other.pid)))
        made = self.spawn(SLEEP)
        with mock.patch.object(processes.table(), "mark", return_value=None):
            self.assertEqual(find_stranger(made, found).pid, other.pid)

    def test_a_listener_with_another_mark_is_a_stranger(self) -> None:
        port = self.lease()
        made = self.spawn(SLEEP)
        other = self.spawn(python(TCP_SERVER, port), stdout=subprocess.DEVNULL)
        self.assertEqual(find_stranger(made, self.listening(port)).pid, other.pid)

    def test_a_younger_listener_without_a_mark_passes(self) -> None:
        port = self.lease()
        made = self.spawn(SLEEP)
        environment = {name: value for name, value in os.environ.items() if name != processes.MARK}
        other = subprocess.Popen(python(TCP_SERVER, port), env=environment, stdout=subprocess.DEVNULL)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.assertIsNone(find_stranger(made, self.listening(port)))

    def test_a_listener_that_cannot_be_seen_passes(self) -> None:
        made = self.spawn(SLEEP)
        self.assertIsNone(find_stranger(made, [ports.Listener("127.0.0.1", 80, inode=1)]))
