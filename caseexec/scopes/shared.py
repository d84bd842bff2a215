"""Services that several classes share, and when they go."""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakSet

from caseexec import registry
from caseexec.errors import ServiceUnavailable
from caseexec.scopes.launch import Launch
from caseexec.scopes.together import in_order
from caseexec.scopes.watch import Watch
from caseexec.service import Service

__all__ = ["Key", "Shared", "await_class", "class_begins", "class_ends", "end_modules", "end_run", "share"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class Key(NamedTuple):
    """What two classes have in common that share a service.

    :ivar module: the module, if it is the scope; empty: the whole run.
    :ivar by: what names one that is there already, in place of ours.
    :ivar needs: the same of the services that it needs.
    """

    service: Service[Any]
    module: str
    by: str
    needs: tuple[tuple[str, Key], ...]


@dataclass(eq=False)
class Shared:
    """A service that is, or was, or could not be started for all classes with an equal declaration.

    :ivar watch: it, once it was started.
    :ivar holders: how many use it that are no classes: it does not end with the last class of its module then.
    """

    key: Key
    launch: Launch
    watch: Watch | None = None
    holders: int = 0
    _problem: str = ""
    _told_by: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, others: Mapping[str, str], moment: str) -> Watch:
        """Start it, unless it runs.

        :param moment: for what it is needed (``CacheTests.setUpClass``).
        :raises ExecutorError: it could not be started.
        :raises ServiceDied: it ended by itself, of which nobody was told yet.
        :raises ServiceUnavailable: another class was told of either.
        """
        with self._lock:  # Two attributes of one class may be equal, and are started side by side.
            if self.watch is None:
                self._start(others, moment)
            elif self.watch.is_down():  # By whatever another class has done, or what has happened meanwhile.
                self.watch.meet(moment)
                self.watch.start(moment)
            assert self.watch is not None
            return self.watch

    def stop(self) -> None:
        """Stop it; raises as :meth:`Watch.end`."""
        if self.watch is not None:
            self.watch.end()

    def _start(self, others: Mapping[str, str], moment: str) -> None:
        if self._problem:
            raise ServiceUnavailable(self._problem, self._told_by)
        try:
            self.launch.start(others)
        except Exception as error:
            self._problem = f"{self.launch.declared.who} could not be started ({type(error).__name__})"
            self._told_by = moment
            raise
        except BaseException:  # It was cancelled, or interrupted: the next one to need it begins anew.
            with _lock:
                if self in _shared:
                    _shared.remove(self)
            raise
        self.watch = Watch(self.launch, moment)


_shared: list[Shared] = []
_owner = 0
_lock = threading.RLock()
# The classes of each module that have not run yet and share something in it.
_awaited: dict[str, WeakSet[type]] = {}


def share(key: Key, launch: Launch) -> Shared:
    """The one with this key: it is *launch*, when there is none yet."""
    global _owner
    with _lock:
        if _owner != os.getpid():  # A forked child has none of its own; those of its parent are the parent's.
            _owner = os.getpid()
            _shared.clear()
            registry.current_run()  # Whose sweep comes after this, then: they are called in reverse.
            atexit.register(_end_run, _owner)
        for one in _shared:
            if one.key == key:
                return one
        _shared.append(Shared(key, launch))
        return _shared[-1]


def await_class(case: type) -> None:
    """Note that a class will run, which shares something in its module."""
    _awaited.setdefault(case.__module__, WeakSet()).add(case)


def class_begins(case: type) -> None:
    """Let go what other modules have shared; their classes are over, in the usual order."""
    _end_with_warning(lambda one: one.key.module not in ("", case.__module__))


def class_ends(case: type) -> None:
    """Let go what its module has shared, when it was the last class in there."""
    left = _awaited.get(case.__module__, WeakSet())
    left.discard(case)
    if all(getattr(one, "__unittest_skip__", False) for one in left):
        _end(lambda one: one.key.module == case.__module__ and not one.holders)


def end_modules() -> None:
    """Let go what any module has shared: for a runner that knows when no test of a module is left.

    :raises Exception: one did not end well; its notes tell of others.
    """
    _end(lambda one: bool(one.key.module))


def end_run() -> None:
    """Let go all that is shared: for a runner that knows when no test is left. Otherwise it ends at exit.

    :raises Exception: one did not end well; its notes tell of others.
    """
    _end(lambda one: True)


def _end(is_over: Callable[[Shared], bool]) -> None:
    """Stop some.

    :raises Exception: one did not end well; its notes tell of others.
    """
    with _lock:
        over = [one for one in _shared if is_over(one)]
        _shared[:] = [one for one in _shared if one not in over]
    started = [one for one in over if one.watch]
    needs = {one: [other for other in started if any(one.key == key for _, key in other.key.needs)] for one in started}
    in_order(needs, Shared.stop)


def _end_run(owner: int) -> None:
    if owner == os.getpid():
        _end_with_warning(lambda one: True)


def _end_with_warning(is_over: Callable[[Shared], bool]) -> None:
    try:
        _end(is_over)
    except Exception as error:  # It is no error of whoever is here now.
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        warnings.warn(f"{type(error).__name__}: {error}{notes}", RuntimeWarning, stacklevel=2)
