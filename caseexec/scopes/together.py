"""Doing something with each of several services: side by side, and in the order of what they need."""

from __future__ import annotations

import atexit
import functools
import graphlib
import queue
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar
from weakref import WeakSet

from caseexec.deadline import Deadline
from caseexec.errors import add_note, text_of
from caseexec.executors.fate import Cancelled

__all__ = ["in_order"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


# Between two looks at those under way, when nothing is heard of them (seconds).
_LOOK = 0.05
# With those that are under way at exit (seconds).
_PATIENCE = 1.0

_Name = TypeVar("_Name", bound=Hashable)


def in_order(
    needs: Mapping[_Name, Iterable[_Name]],
    work: Callable[[_Name], object],
    cancel: Callable[[_Name], object] | None = None,
) -> None:
    """Do *work* for each name, after that for those it needs. What does not need each other is done side by side.

    A name that has nobody beside it is done in this thread. When this is over nothing is under way, unless it was
    interrupted twice.

    :param cancel: called, when one has failed, for each that is under way, again and again: it makes that raise soon;
        no other is begun. ``None``: all others are done whatever happens, except after an interrupt.
    :raises BaseException: what the first that failed has raised; its notes tell what others have.
    """
    order = graphlib.TopologicalSorter(needs)
    order.prepare()
    crew, told = _Crew(work), set[_Name]()
    try:
        while order.is_active() and not crew.has_failed(at_all=cancel is not None):
            crew.begin(order.get_ready())
            crew.wait_for_more_than(told)
            for name in crew.over - told:
                told.add(name)
                order.done(name)
    except BaseException as interrupt:
        crew.errors.insert(0, interrupt)
    crew.finish(cancel)
    errors = [error for error in crew.errors if not isinstance(error, Cancelled)] or crew.errors
    if errors:
        first, *others = errors
        for other in others:
            add_note(first, f"And also:\n{type(other).__name__}: {text_of(other)}")
        raise first


# Those that may still be under way, when somebody was interrupted twice.
_left: WeakSet[threading.Thread] = WeakSet()


@functools.cache
def _notice_exit() -> None:
    atexit.register(_await_threads)


def _await_threads() -> None:
    """Give those that were cancelled the time to end what they do, before the sweep at exit looks for what is left."""
    deadline = Deadline(_PATIENCE)
    with suppress(KeyboardInterrupt):
        for thread in list(_left):
            if thread.is_alive():
                thread.join(deadline.remaining())


class _Crew(Generic[_Name]):
    """Who is under way, and what went wrong.

    An interrupt may come between any two steps here: what counts is who is in :attr:`over`, and which threads live.

    :ivar over: those that are done, well or not.
    """

    def __init__(self, work: Callable[[_Name], object]) -> None:
        self.errors: list[BaseException] = []
        self.over: set[_Name] = set()
        self._work = work
        self._threads: dict[_Name, threading.Thread] = {}
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._begun: set[_Name] = set()
        self._closed = False

    def has_failed(self, at_all: bool) -> bool:
        """Whether something has, or else at least an interrupt came."""
        return any(at_all or not isinstance(error, Exception) for error in self.errors)

    def begin(self, names: Iterable[_Name]) -> None:
        todo = list(names)
        alone = len(todo) == 1 and not self._under_way()
        for name in todo:
            if alone or not self._start_thread(name):
                self._do(name)

    def _start_thread(self, name: _Name) -> bool:
        """Start one that keeps nobody from leaving; ``False``: there can be none, as the interpreter ends."""
        thread = threading.Thread(target=self._do, args=(name,), name="caseexec", daemon=True)
        self._threads[name] = thread
        _left.add(thread)
        _notice_exit()
        outer = sys.exc_info()[1]
        try:
            thread.start()
        except RuntimeError as error:
            interrupt = error.__context__
            # An interrupt in the wait for the thread may come between two steps of a lock, which then hides it.
            if interrupt is not None and interrupt is not outer and not isinstance(interrupt, Exception):
                raise interrupt from None
            del self._threads[name]
            return False
        return True

    def _do(self, name: _Name) -> None:
        try:
            self._begun.add(name)  # Before it looks: one of the two sees the other, here or in _late.
            if not self._closed:
                self._work(name)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.over.add(name)
            self._news.put(None)

    def wait_for_more_than(self, told: set[_Name]) -> None:
        """Wait until one is over that is not among these."""
        while not self.over - told and self._under_way():
            self._await_news()

    def finish(self, cancel: Callable[[_Name], object] | None) -> None:
        """Wait until nothing is under way."""
        try:
            while under_way := self._under_way() or self._late():
                if cancel and self.errors:
                    for name in under_way:
                        cancel(name)
                self._await_news()
        except BaseException:  # Most likely an impatient user, who waits at most until the exit.
            if cancel:
                for name in self._under_way():
                    cancel(name)
            raise

    def _await_news(self) -> None:
        with suppress(queue.Empty):
            self._news.get(timeout=_LOOK)

    def _under_way(self) -> list[_Name]:
        waiting = [(name, thread) for name, thread in self._threads.items() if name not in self.over]
        # One whose start was interrupted may live in a moment, or never.
        return [name for name, thread in waiting if any(thread.is_alive() for _ in Deadline(_LOOK).turns())]

    def _late(self) -> list[_Name]:
        """Those whose start was interrupted and whose thread has come to life only now; no other will do anything."""
        self._closed = True
        return [name for name in self._threads if name in self._begun and name not in self.over]
