"""The executor of a command that does its work and ends."""

from __future__ import annotations

from typing import Self

from caseexec.errors import ProcessExitedWithError
from caseexec.executors.waiting import Executor

__all__ = ["OneShotExecutor"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class OneShotExecutor(Executor):
    """Ready when the command has ended with status 0. What it left in the background is ended then, too."""

    def start(self) -> Self:
        """Run the command to its end; raises as :meth:`Executor.start`."""
        super().start()
        return self.kill()

    def pre_start_check(self) -> bool:
        """Nobody else can have what it needs."""
        return False

    def check_subprocess(self) -> bool:
        """Whether it has done its work.

        :raises ProcessExitedWithError: it ended with another status, or by a signal.
        """
        code = self.exit_code()
        self._refusal = "it is still at work" if code is None else ""
        if code:
            error = ProcessExitedWithError(self, code)
            self._abort()
            raise error
        return code == 0 and (self._further is None or self.after_start_check())

    def _awaiting(self) -> str:
        return "its end with status 0" + (f", and {self._further}" if self._further else "")
