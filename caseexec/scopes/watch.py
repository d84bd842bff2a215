"""What happens to a running service from one test to the next."""

from __future__ import annotations

import textwrap
import warnings
from typing import NoReturn

from caseexec.errors import CrashWarning, ServiceDied, ServiceUnavailable, add_note, exit_text, printable
from caseexec.executors import Executor, OutputMark
from caseexec.scopes.launch import Launch

__all__ = ["Watch"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Watch:
    """One running service, as the tests see it that use it.

    :param launch: it was started.
    :param moment: what is going on (``CacheTests.setUpClass``), for those who ask later during what it has died.
    """

    def __init__(self, launch: Launch, moment: str) -> None:
        self.launch = launch
        self._moment = moment
        # Of its end, once somebody was told everything: in one line, and who that was.
        self._problem = self._told_by = ""
        self._is_fresh = True
        self._mark: OutputMark = ()

    @property
    def executor(self) -> Executor:
        """Its executor."""
        assert self.launch.executor is not None
        return self.launch.executor

    @property
    def name(self) -> str:
        """What its class calls it."""
        return self.launch.declared.attribute or f"service ({self.executor.program})"

    def meet(self, test: str) -> None:
        """Make sure, before a test, that it is there or can be started again.

        :raises ServiceDied: it ended by itself, of which nobody was told yet.
        :raises ServiceUnavailable: somebody was.
        """
        if self._problem and not self.executor.running():
            _raise(ServiceUnavailable(self._problem, self._told_by))
        if self.has_died() and self.launch.service.restart == "never":
            self._tell(test)

    def is_down(self) -> bool:
        """Whether it has died, or was stopped."""
        return self.launch.service.keeps_running and (self.executor.was_stopped() or self.executor.has_died())

    def must_start(self) -> bool:
        """Whether it is to be started for a test: it is down, or is to be new for each."""
        return self.is_down() or (self.launch.service.restart == "test" and not self._is_fresh)

    def has_died(self) -> bool:
        """Whether it has ended by itself."""
        return self.launch.service.keeps_running and self.executor.has_died()

    def start(self, test: str) -> None:
        """Start it again for a test, at the same place.

        :raises ExecutorError: it could not be started.
        """
        crash = self._fate() if self.has_died() else ""
        try:
            self.executor.restart()
        except Exception as error:
            self._problem = f"{self.name} could not be started again ({type(error).__name__})"
            self._told_by = test
            raise
        self._is_fresh, self._problem = True, ""
        if crash:  # Only when it is ready: a warning may be an error (-W error).
            warnings.warn(CrashWarning(crash, "it was started again"), stacklevel=2)

    def begin(self, test: str) -> None:
        """Note that a test begins, and reset it."""
        self._moment, self._is_fresh = test, False
        self._mark = self.executor.output_mark()
        reset = self.launch.service.reset
        if callable(reset):
            try:
                reset(self.executor)
            except Exception as error:
                add_note(error, f"{self.name} could not be reset before {test}.")
                raise

    def end(self) -> None:
        """Stop it and give everything back; one that has ended by itself is told of, if it was not yet.

        :raises ServiceDied: it had, and that is an error.
        :raises ProcessFinishedWithError: it did not end well.
        """
        if not self.has_died():
            self.launch.stop()
            return
        try:
            if self._problem:
                return
            if self.launch.service.restart == "never":
                self._tell("the class")
            warnings.warn(CrashWarning(self._fate(), "it was not needed any more"), stacklevel=2)
        finally:
            self.launch.discard()

    def words(self) -> str:
        """What it wrote since the test began, and whether it has died; for whoever reads of that test's failure."""
        died = f", which {self._how()}" if self.has_died() else ""
        lines = self._written()
        path = f" ({self.executor.log_path})" if self.launch.has_log() else ""
        place = f"  {self.name}{died}{path}:"
        return f"{place}\n{textwrap.indent(lines, '    ')}" if lines.strip() else f"{place} nothing"

    def section(self) -> tuple[str, str]:
        """The same as a title, such as ``redis (redis-server), /tmp/caseexec-....log``, and a text."""
        died = f", which {self._how()}" if self.has_died() else ""
        lines = self._written()
        program = f" ({self.executor.program})" if self.launch.declared.attribute else ""
        path = f", {self.executor.log_path}" if self.launch.has_log() else ""
        return f"{self.name}{program}{died}{path}", lines if lines.strip() else "nothing"

    def _written(self) -> str:
        self.launch.keep_log()  # Somebody is told of it.
        return "\n".join(map(printable, self.executor.tail_since(self._mark).splitlines())).strip("\n")

    def _tell(self, told_by: str) -> None:
        self._problem, self._told_by = self._fate(), told_by
        self.launch.keep_log()
        _raise(ServiceDied(self.executor, self.name, self._moment))

    def _fate(self) -> str:
        return f"{self.name} {self._how()} during {self._moment}"

    def _how(self) -> str:
        code = self.executor.exit_code()
        return "ended" if code is None else exit_text(code)


def _raise(error: Exception) -> NoReturn:
    raise error
