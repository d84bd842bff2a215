"""The services of Django's settings, in a session of pytest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from caseexec.django.runner import CommandError, project_runner
from caseexec.errors import text_of
from caseexec.executors import Executor

__all__ = ["run_services"]

_NONE = "caseexec_django has no services: {} has no CASEEXEC_SERVICES; is DJANGO_SETTINGS_MODULE that of the tests?"

# Its frames are left out of the traceback of a failed test.
__tracebackhide__ = True


def run_services(request: pytest.FixtureRequest, for_all: bool) -> Iterator[Mapping[str, Executor]]:
    """Run the services of the settings, as the project's test runner does; they are given by name.

    :param for_all: whether all tests need them, so that without them there is nothing to do.
    """
    try:
        request.getfixturevalue("django_test_environment")  # That one is pytest-django's, and changes settings too.
    except pytest.FixtureLookupError:
        raise pytest.fail.Exception("caseexec_django needs pytest-django: install that", pytrace=False) from None
    runner = project_runner(keepdb=request.config.getoption("reuse_db", default=False), verbosity=0)
    with _without_traceback(), ExitStack() as over:
        try:
            services = over.enter_context(runner.running_services())
            if not services:
                raise CommandError(_NONE.format(os.environ.get("DJANGO_SETTINGS_MODULE", "its settings")))
        except CommandError:
            if for_all:
                request.session.shouldfail = "the services of Django's settings could not be started"
            raise
        yield services


@contextmanager
def _without_traceback() -> Iterator[None]:
    """Tell of what went wrong as ``manage.py test`` does."""
    try:
        yield
    except CommandError as error:
        raise pytest.fail.Exception(text_of(error), pytrace=False) from None
