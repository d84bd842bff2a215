"""A test runner that starts services for the whole run."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage
from django.core.management.base import CommandError, SystemCheckError
from django.test import override_settings
from django.test.runner import DiscoverRunner, ParallelTestSuite
from django.test.utils import get_runner

from caseexec.django.applied import applied
from caseexec.django.checks import MISSING_PROGRAM, check_all
from caseexec.django.declared import SERVICES, SETTINGS, entries, filled, kept, plan_of, services_of_settings
from caseexec.django.settings import changed
from caseexec.django.workers import prepare
from caseexec.errors import DeclarationError, ExecutorError, ServiceDied, text_of
from caseexec.executors import Executor
from caseexec.mixins.base import label
from caseexec.scopes import Services
from caseexec.service import Service

__all__ = ["CommandError", "ServicesRunner", "ServicesRunnerMixin", "project_runner"]


class ServicesRunnerMixin(DiscoverRunner):
    """For a project's own test runner; name it before ``DiscoverRunner``, or what is derived from that.

    The services that ``CASEEXEC_SERVICES`` declares are started before anything else is done, and Django's settings
    tell where they are; they are stopped behind everything else, however the run ends. They are the run's: workers
    (``--parallel``) use those of their parent.
    """

    def __init__(self, *args: Any, no_services: bool = False, keep_services: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.no_services = no_services
        self.keep_services = keep_services
        self._changed: dict[str, Any] = {}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options ``--no-services`` and ``--keep-services``."""
        super().add_arguments(parser)
        parser.add_argument(
            "--no-services",
            action="store_true",
            help="Starts none of the services of the run, and uses what the settings say.",
        )
        parser.add_argument(
            "--keep-services",
            action="store_true",
            help="Leaves the services of the run as they are behind the tests, until Enter or Ctrl-C.",
        )

    def services(self) -> dict[str, Service[Any]]:
        """The services to start, by name; those of ``CASEEXEC_SERVICES``. To be overridden."""
        return services_of_settings()

    def service_settings(self, services: Mapping[str, Executor]) -> dict[str, Any]:
        """The settings to change, in the form of :meth:`ServiceSettingsMixin.service_settings`. To be overridden.

        A service whose name is an alias of ``DATABASES`` or ``CACHES``, and that is of such a kind, is that entry; then
        ``CASEEXEC_SETTINGS`` is added, with its placeholders filled in.

        :param services: the running ones, by name.
        """
        offered = self._services.offered()
        return {**entries(services), **filled(getattr(settings, SETTINGS, {}), offered)}

    def run_tests(self, test_labels: list[str], **kwargs: Any) -> int:
        """Run the tests, with the services.

        :raises CommandError: a service could not be started, or has ended by itself.
        """
        if self.no_services:
            return int(super().run_tests(test_labels, **kwargs))
        with self.running_services():
            failures = int(super().run_tests(test_labels, **kwargs))
            if self.keep_services:
                self._wait()
        return failures

    def run_checks(self, *args: Any, **kwargs: Any) -> None:
        """Run the system checks; with ``--no-services`` a program may be missing."""
        silenced = [MISSING_PROGRAM] if self.no_services else []
        with override_settings(SILENCED_SYSTEM_CHECKS=[*settings.SILENCED_SYSTEM_CHECKS, *silenced]):
            super().run_checks(*args, **kwargs)

    def build_suite(self, *args: Any, **kwargs: Any) -> Any:
        """Build the suite; its workers will have the same settings, and one that dies will be an error."""
        suite = super().build_suite(*args, **kwargs)
        if isinstance(suite, ParallelTestSuite):
            prepare(suite, self._changed)
        return suite

    # -- the services --------------------------------------------------------------------------------------------------

    @contextmanager
    def running_services(self) -> Iterator[dict[str, Executor]]:
        """Have them run for the block, by name, and the settings tell where they are.

        :raises CommandError: one could not be started, or has ended by itself.
        """
        self._services = self._declared()
        try:
            with _as_command_error():
                self._services.start()
                changes = self.service_settings(self._services.executors())
                self._changed = changed(changes, self._place("service_settings", SETTINGS))
            for name, executor in self._services.executors().items():
                did = "Found" if executor.existing else "Started"
                self.log(f"{did} {name} {executor.address}".rstrip(), level=logging.DEBUG)
            try:
                with applied(self._changed):
                    yield self._services.executors()
            except (Exception, SystemExit):  # Django exits when a test database can't be made.
                self._stop()  # One that has died is why, most likely.
                raise
            self._stop()
        finally:
            self._services.discard()

    def _stop(self) -> None:
        with _as_command_error():
            self._services.stop()

    def _declared(self) -> Services:
        place = self._place("services", SERVICES)
        services = self.services()
        found = [message for message in check_all(services, place) if not message.is_silenced()]
        errors = [message for message in found if message.is_serious()]
        if errors:
            raise SystemCheckError(f"The services of the run can't be started:\n\n{_lines(errors)}")
        # That one may tell where they are; and Django's own checks tell it as well.
        if found and not self._overrides("service_settings") and not apps.is_installed("caseexec.django"):
            self.log(_lines(found))
        if self.keepdb:
            services = {name: kept(service, name) for name, service in services.items()}
        return Services(plan_of(services, place), place, moment=ServiceDied.RUN)

    def _place(self, method: str, setting: str) -> str:
        """What errors call the services, or the settings: the setting, unless the method is overridden."""
        return f"{label(type(self))}.{method}" if self._overrides(method) else setting

    def _overrides(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(ServicesRunnerMixin, method)

    def _wait(self) -> None:
        print("The services stay as they are until Enter or Ctrl-C:")
        for name, executor in self._services.executors().items():
            print(f"  {name}: {executor.url or 'without an address'} (pid {executor.pid}, log {executor.log_path})")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            sys.stdin.readline()


class ServicesRunner(ServicesRunnerMixin):
    """Django's test runner, with services: ``TEST_RUNNER = "caseexec.django.ServicesRunner"``."""


def project_runner(**options: Any) -> ServicesRunnerMixin:
    """The test runner of the settings, or, if that has no services, Django's with services.

    :param options: what it is made with.
    """
    kind = get_runner(settings)
    return (kind if issubclass(kind, ServicesRunnerMixin) else ServicesRunner)(interactive=False, **options)


def _lines(messages: Sequence[CheckMessage]) -> str:
    return "\n".join(map(str, messages))


@contextmanager
def _as_command_error() -> Iterator[None]:
    """Tell of what went wrong without a traceback, unless ``--traceback`` asks for it."""
    try:
        yield
    except (ExecutorError, DeclarationError) as error:
        notes = getattr(error, "__notes__", ())
        raise CommandError("\n".join([f"{type(error).__name__}: {text_of(error)}", *notes])) from error
