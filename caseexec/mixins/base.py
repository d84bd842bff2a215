"""The mixin that starts and stops what a test class declares; all others are made of it."""

from __future__ import annotations

import functools
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from caseexec.errors import DeclarationError, LeakedProcessWarning, ServiceNotStarted
from caseexec.executors import Executor
from caseexec.mixins.of_class import check_class_values, check_slips, class_values, label
from caseexec.mixins.results import telling
from caseexec.scopes import ClassServices, Launch, await_class, class_ends
from caseexec.service import Plan, Service

__all__ = ["ServicesMixin", "label"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


class ServicesMixin(unittest.TestCase):
    """Starts the services that a test class declares as its attributes, and stops them after its tests.

    ``web = TCPService("{python} -m http.server {port}")`` declares one; in the tests ``self.web`` is the running
    executor, and so is ``cls.web`` in ``setUpClass``. Declarations are inherited; a subclass may replace one, or
    remove it (``web = None``). Services that do not need each other are started, and stopped, side by side.

    ``setUpClass`` starts them and waits until all are ready, then calls ``super().setUpClass()``; ``tearDownClass``
    does the reverse. A class that overrides one of them calls ``super()``'s. When all its tests are skipped by a
    decorator, nothing is started.
    """

    _service_plan: ClassVar[Plan] = Plan({}, {})
    _services: ClassVar[ClassServices]
    # Of a class with a setUpClass of its own: somebody has called that.
    _set_up_begun: ClassVar[bool]
    # The one that is simply "the service" of the class.
    _nameless_service: ClassVar[str] = ""
    # Where a debugger may look at a test first: what ends its services, to be called by whoever has set this.
    _postponed: ClassVar[list[Callable[[], object]] | None] = None
    # Whether anybody calls service_settings.
    _has_settings: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names: dict[int, str] = {}
        for name, value in _declared(cls).items():
            # It is by its identity that an attribute is found again.
            if names.setdefault(id(value), name) != name:
                setattr(cls, name, value.replace())
        if isinstance(own := vars(cls).get("setUpClass"), classmethod):
            cls.setUpClass = _noting(own.__func__)  # type: ignore[method-assign, assignment]
        check_slips(cls, cls._has_settings)
        cls._check_attributes()
        cls._service_plan = cls._make_service_plan()
        if any(service.scope == "module" for service in cls._service_plan.services.values()) and _tests(cls):
            await_class(cls)

    # -- the declarations ----------------------------------------------------------------------------------------------

    @classmethod
    def service_declarations(cls) -> dict[str, Service[Any]]:
        """The services of this class by attribute, those of its bases first."""
        return _declared(cls)

    @classmethod
    def _check_attributes(cls) -> None:
        """Refuse what would be ignored, or hide a service.

        :raises DeclarationError: there is such an attribute.
        """
        declared = {name for name, value in _attributes(cls) if isinstance(value, Service)}
        for name, value in vars(cls).items():
            if name in declared and value is not None and not isinstance(value, Service):
                problem = f"it takes the place of a service, but is {value!r}: only None removes one"
                raise DeclarationError(f"{label(cls)}.{name}", problem)
            option = name.removeprefix("service_")
            if option != name and option in Service.__dataclass_fields__:
                problem = (
                    "that is an attribute of the mixins for one service, as TCPServiceMixin, which this class has not"
                )
                way_out = f"derive from one of them, or write it into a declaration: TCPService(..., {option}=...)"
                raise DeclarationError(f"{label(cls)}.{name}", f"{problem}: {way_out}")

    @classmethod
    def _make_service_plan(cls) -> Plan:
        services = cls.service_declarations()
        for name in services:
            if _is_taken(cls, name):
                problem = f"a {type(services[name]).__name__} cannot have the name of a test, or of what every test has"
                raise DeclarationError(f"{label(cls)}.{name}", f"{problem}: rename it")
        named = {name: service.replace(where=cls._place(name)) for name, service in services.items()}
        plan = Plan.of(named, [(name, value) for name, value in _attributes(cls) if isinstance(value, Service)])
        if plan.late and _tests(cls):  # Without tests it may be a base of those that have what it needs.
            check_class_values(cls, ServicesMixin, plan)
        return plan

    @classmethod
    def _final_service_plan(cls) -> Plan:
        # Made anew, as a set-up may have changed an attribute.
        return cls._make_service_plan()

    @classmethod
    def _place(cls, name: str) -> str:
        """What stands before the name of an option, in errors."""
        return f"{label(cls)}.{name}."

    @classmethod
    def _running_service(cls, declaration: Service[Any]) -> Executor:
        """The running executor of a declaration that is an attribute of this class."""
        return cls._service_named(next(name for name, value in _attributes(cls) if value is declaration))

    @classmethod
    def _service_named(cls, name: str) -> Executor:
        """The running executor of that name.

        :raises ServiceNotStarted: there is none now.
        """
        services: ClassServices | None = vars(cls).get("_services")
        if services is None:
            raise ServiceNotStarted(f"{label(cls)}.{name}", now=True)
        return services.executor(name)

    @classmethod
    def _not_started(cls) -> ServiceNotStarted:
        overriding = next(base for base in cls.__mro__ if "setUpClass" in vars(base))
        uncalled = issubclass(overriding, ServicesMixin) and "_set_up_begun" not in vars(cls)
        innocent = uncalled or issubclass(ServicesMixin, overriding)
        return ServiceNotStarted(label(cls), None if innocent else label(overriding))

    # -- the class -----------------------------------------------------------------------------------------------------

    @classmethod
    def setUpClass(cls) -> None:
        """Start the services and wait until they are ready; then ``super().setUpClass()``.

        Those that need the class's live server, by ``{live_server_url}``, are started behind it.
        """
        if _all_skipped(cls):
            cls.addClassCleanup(class_ends, cls)
            super().setUpClass()
            return
        services = ClassServices(cls._final_service_plan(), cls, label(cls), cls._nameless_service)
        cls.addClassCleanup(cls._end_leaked_services, services)
        services.start()
        cls._services = services
        try:
            cls._services_are_ready()
            super().setUpClass()
            if services.plan.late:
                services.start_late(class_values(cls))
        except BaseException as error:
            services.note_set_up(error)
            # After a KeyboardInterrupt or SystemExit no class cleanup is run.
            cls._forget_services()
            services.discard()
            raise

    @classmethod
    def _services_are_ready(cls) -> None:
        """What is to be done between the start of the services and ``super().setUpClass()``."""

    @classmethod
    def tearDownClass(cls) -> None:
        """``super().tearDownClass()``; then stop the services."""
        services = vars(cls).get("_services")  # None: skipped, or a setUpClass without super(), as each test has told.
        try:
            if services is not None:
                services.stop_late()
        finally:
            try:
                super().tearDownClass()
            finally:
                cls._forget_services()
                if services is not None:
                    services.stop()

    @classmethod
    def _forget_services(cls) -> None:
        if "_services" in vars(cls):
            del cls._services

    @classmethod
    def _end_leaked_services(cls, services: ClassServices) -> None:
        cls._forget_services()
        # unittest notes the failure on the class; pytest cleans up while it handles it, as it does that of a tear-down.
        failed = getattr(cls, "_classSetupFailed", False) or sys.exc_info()[0] is not None
        why = "tearDownClass did not stop it: does it call super().tearDownClass()?"
        if failed and not services.used and not services.skipped:
            logs = " and ".join(services.keep_logs())
            why = "setUpClass failed after the service had started" + (f" (see {logs})" if logs else "")
        for launch, pids in services.discard():
            if not services.skipped:
                warnings.warn(LeakedProcessWarning(launch.declared.who, _command(launch), pids, why), stacklevel=2)

    # -- each test -----------------------------------------------------------------------------------------------------

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, with its services ready when it begins; without them it is an error."""
        services = vars(type(self)).get("_services")
        with self._prepared(services):
            if services is None or result is None:
                return super().run(result)
            super().run(telling(result, services.words))
            return result

    def debug(self) -> None:
        """Run the test without collecting its result; likewise."""
        with self._prepared(vars(type(self)).get("_services")):
            super().debug()

    @contextmanager
    def _prepared(self, services: ClassServices | None) -> Iterator[None]:
        # In front of setUp, and not of the test: a skipped one needs nothing. On the instance, as the class's own setUp
        # may not call super()'s.
        self.setUp = _SetUp(self, services, self.setUp)  # type: ignore[method-assign]
        try:
            yield
        finally:
            vars(self).pop("setUp", None)  # zope.testrunner may have emptied it.
            if services is not None and self._postponed is not None:
                self._postponed.append(services.discard_test)
            elif services is not None:  # After an interrupt no cleanup is run.
                services.discard_test()


class _SetUp:
    """What is called in place of a test's ``setUp``: it has the services ready first."""

    def __init__(self, test: ServicesMixin, services: ClassServices | None, set_up: Callable[[], object]) -> None:
        self._test = test
        self._services = services
        self._set_up = set_up
        self._begun = False

    def __call__(self) -> None:
        if not self._begun:  # A test may call its own setUp again.
            self._begun = True
            self._begin()
        self._set_up()

    def _begin(self) -> None:
        if self._services is not None:
            if self._test._postponed is not None:
                self._test._postponed.append(self._services.end_test)
            else:  # Last of all cleanups, as it is the first.
                self._test.addCleanup(_end_test, type(self._test))
            self._services.begin_test(self._test._testMethodName)
        elif self._test._service_plan.services:
            raise self._test._not_started()

    def __reduce__(self) -> tuple[Any, ...]:
        # Django pickles the test of a failing subtest, and so each of its attributes, to tell of it elsewhere.
        return functools.partial, (bool,)  # Where it is only told of, it does nothing.


def _end_test(cls: type[ServicesMixin]) -> None:
    # No method of the services: Django pickles the cleanups, too.
    cls._services.end_test()


def _noting(set_up: Callable[[type[ServicesMixin]], object]) -> classmethod[Any, [], None]:
    """A class's own ``setUpClass``, whose error tells what the services wrote: nobody else sees one behind ours."""

    @functools.wraps(set_up)
    def noting(cls: type[ServicesMixin]) -> None:
        cls._set_up_begun = True
        try:
            set_up(cls)
        except Exception as error:
            if services := vars(cls).get("_services"):
                services.note_set_up(error)
            raise

    return classmethod(noting)


def _declared(cls: type) -> dict[str, Service[Any]]:
    """The declarations among the attributes of a class, those of its bases first."""
    found: dict[str, Service[Any]] = {}
    for name, value in _attributes(cls):
        if isinstance(value, Service):
            found[name] = value
        else:
            found.pop(name, None)
    return found


def _is_taken(cls: type, name: str) -> bool:
    """Whether a name is one of a test, of what every test has, or of what Django gives to each."""
    frameworks = [base for base in cls.__mro__ if base.__module__.partition(".")[0] in ("unittest", "django")]
    return (
        name.startswith((unittest.TestLoader.testMethodPrefix, "service_"))
        or any(name in vars(base) for base in frameworks)
        or hasattr(cls, f"{name}_class")  # client_class, async_client_class
    )


def _attributes(cls: type) -> Iterator[tuple[str, object]]:
    """The attributes of a class and of its bases, the most basic first."""
    for base in reversed(cls.__mro__):
        yield from vars(base).items()


def _command(launch: Launch) -> str:
    return launch.executor.command if launch.executor else ""


def _tests(cls: type[unittest.TestCase]) -> list[str]:
    return list(unittest.defaultTestLoader.getTestCaseNames(cls))


def _all_skipped(cls: type[unittest.TestCase]) -> bool:
    """Whether each of its tests is skipped by a decorator, unittest's or pytest's."""
    methods = [getattr(cls, name) for name in _tests(cls)]
    return bool(methods) and all(map(_is_skipped, methods))


def _is_skipped(method: object) -> bool:
    marks = getattr(method, "pytestmark", ())
    return bool(getattr(method, "__unittest_skip__", False)) or any(getattr(m, "name", "") == "skip" for m in marks)
