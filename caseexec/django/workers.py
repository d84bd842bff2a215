"""The workers of a parallel run: each has the settings of its parent, and one that dies is told of."""

from __future__ import annotations

import multiprocessing
import unittest
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from types import MethodType
from typing import Any

from django.test.runner import ParallelTestSuite

from caseexec.django.applied import cover
from caseexec.errors import exit_text

__all__ = ["prepare"]


def prepare(suite: ParallelTestSuite, changed: Mapping[str, Any]) -> None:
    """Have the workers of a suite see settings that were changed, and the suite see whether they live."""
    first = suite.process_setup.__func__  # type: ignore[attr-defined]
    suite.process_setup_args = (first, suite.process_setup_args, changed)
    suite.process_setup = MethodType(_set_up, suite)
    suite.run = MethodType(_run, suite)  # type: ignore[method-assign]


def _set_up(first: Callable[..., object], arguments: Sequence[Any], changed: Mapping[str, Any]) -> None:
    """Give a worker that was spawned the settings, before Django is set up in it.

    :param first: what was to be called then anyway, with its arguments.
    """
    first(*arguments)
    cover(changed)


def _run(suite: ParallelTestSuite, result: unittest.TestResult) -> unittest.TestResult:
    type(suite).run(suite, _Watching(result))
    return result


class _Watching:
    """A test result that asks for an end of the run when a worker has died.

    The pool would replace it, and wait for its tests forever. That the run is to end is asked ten times a second.
    """

    def __init__(self, result: unittest.TestResult) -> None:
        self.__dict__.update(_result=result, _workers=set[BaseProcess](), _told=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._result, name, value)

    @property
    def shouldStop(self) -> bool:
        """Whether it was asked for, or a worker has died."""
        self._workers.update(child for child in multiprocessing.active_children() if "PoolWorker" in child.name)
        for worker in self._workers:
            if worker.exitcode is not None and not self._result.shouldStop:
                self._tell(worker)
        return bool(self._result.shouldStop)

    def _tell(self, worker: BaseProcess) -> None:
        told = f"the worker with the pid {worker.pid} {exit_text(worker.exitcode or 0)}, and its tests are lost"
        error = RuntimeError(f"{told}: the run was ended")
        self._result.addError(unittest.suite._ErrorHolder(worker.name), (RuntimeError, error, None))  # type: ignore[attr-defined]
        self._result.stop()
