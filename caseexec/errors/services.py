"""The errors of tests that have not the service they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from caseexec.errors.raised import ExecutorError
from caseexec.errors.text import exit_text, seconds_text

__all__ = ["NotOurs", "OutputNotFound", "ServiceDied", "ServiceNotStarted", "ServiceUnavailable"]


class ServiceNotStarted(RuntimeError, AttributeError):
    """A test was run without its service: nobody called the mixin's ``setUpClass``, or it is not the time for it.

    :ivar where: the test class, or the service.
    :ivar overriding: the class whose ``setUpClass`` stands before the mixin's; ``None``: the runner called none.
    :ivar each_test: it is one that only runs during each test.
    :ivar now: it was asked for outside the time in which it runs.
    :ivar late: it is one that only starts after the live server of its class.
    """

    def __init__(
        self,
        where: str,
        overriding: str | None = None,
        each_test: bool = False,
        now: bool = False,
        late: bool = False,
    ) -> None:
        super().__init__(where, overriding, each_test, now, late)
        self.where = where
        self.late = late
        self.overriding = overriding
        self.each_test = each_test
        self.now = now

    def __str__(self) -> str:
        if self.now:
            case, _, name = self.where.rpartition(".")
            return (
                f"{self.where}: it does not run now, only from super().setUpClass() to super().tearDownClass(). For "
                f"its declaration: {case.rpartition('.')[2]}.service_declarations()[{name!r}]."
            )
        if self.late:
            return (
                f"{self.where}: it does not run yet, as it (or what it needs) calls the live server, which starts when "
                "settings and test data are made: use it in a test, or in setUpClass behind super().setUpClass()."
            )
        if self.each_test:
            return f"{self.where}: it runs during each test only, as its scope is 'test': use it in setUp or in a test."
        if self.overriding is not None:
            return (
                f"{self.where}: its service was not started, because {self.overriding}.setUpClass does not call "
                "super().setUpClass(). Call it, before anything that needs the service; likewise in tearDownClass."
            )
        return (
            f"{self.where}: its service was not started, because the test runner did not call setUpClass "
            "(as twisted.trial, zope.testrunner and unittest-parallel --level=test). Run this class with unittest, "
            "pytest or Django."
        )


class ServiceDied(ExecutorError):
    """A service ended by itself while it was needed.

    :ivar name: what its class calls it.
    :ivar moment: during what it ended, as far as that is known (``CacheTests.test_b``); of one that no test class has
        declared, always :attr:`RUN`.
    """

    RUN = "the run"

    def __init__(self, executor: Any, name: str, moment: str) -> None:
        super().__init__(executor)
        self.facts = replace(self.facts, awaiting="", refusal="")
        self.name = name
        self.moment = moment

    def headline(self) -> str:
        code = self.facts.returncode
        return f"{self.name} {'ended' if code is None else exit_text(code)} during {self.moment}"

    def way_out(self) -> str:
        if self.moment == self.RUN:
            return "One that a test ends on purpose, or that may crash, is to be declared on the class of that test."
        return (
            "A test that ends it on purpose uses its kill(), stopped() or restart(); one that may crash has "
            f"{self.facts.setting('restart')} = 'on_crash'."
        )


class NotOurs(ExecutorError):
    """A service that was there already is left alone, as others may need it.

    :ivar what: what was to be done to it (``stopped``).
    :ivar by: what names it (``CASEEXEC_USE_REDIS=127.0.0.1:6379``).
    """

    def __init__(self, executor: Any, what: str, by: str) -> None:
        super().__init__(executor)
        self.facts = replace(self.facts, awaiting="", refusal="")
        self.what = what
        self.by = by

    def headline(self) -> str:
        return f"{self.facts.who} can't be {self.what}: it was there already ({self.by})"

    def way_out(self) -> str:
        return "Others may need it. Run this test without that variable, so that it has one of its own."


class OutputNotFound(ExecutorError):
    """A command did not write what was waited for; it was left as it is.

    :ivar pattern: the regular expression.
    :ivar timeout: the seconds that it was given; ``None``: without limit.
    """

    def __init__(self, executor: Any, pattern: str, timeout: float | None) -> None:
        super().__init__(executor)
        self.facts = replace(self.facts, awaiting="", refusal="")
        self.pattern = pattern
        self.timeout = timeout

    def headline(self) -> str:
        code = self.facts.returncode
        if code is not None:
            return f"{self.facts.who} {exit_text(code)}, and has not written what matches {self.pattern!r}"
        time = "" if self.timeout is None else f" within {seconds_text(self.timeout, self.facts.scale)}"
        return f"{self.facts.who} has not written what matches {self.pattern!r}{time}"


class ServiceUnavailable(RuntimeError):
    """A service that is needed is not there, of which an earlier error has told all.

    :ivar problem: what happened, in one line.
    :ivar told_by: the test or the class with that error.
    """

    def __init__(self, problem: str, told_by: str) -> None:
        super().__init__(problem, told_by)
        self.problem = problem
        self.told_by = told_by

    def __str__(self) -> str:
        return f"{self.problem}; the error of {self.told_by} tells all"
