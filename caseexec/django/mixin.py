"""Test classes whose settings come from their running services."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

from django.test import override_settings

from caseexec.django.settings import changed
from caseexec.errors import DeclarationError
from caseexec.mixins import ServicesMixin
from caseexec.mixins.base import label
from caseexec.placeholders import names

__all__ = ["ServiceSettingsMixin"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

_REFUSED = {
    "DATABASES": "DATABASES can't be changed for a class, as the test databases are made before it: let the test "
    "runner start that service, with TEST_RUNNER = 'caseexec.django.ServicesRunner' and CASEEXEC_SERVICES"
}


class ServiceSettingsMixin(ServicesMixin):
    """:class:`caseexec.ServicesMixin`, with settings of Django's that come from the running services.

    Name it before the test case, with or without one of the mixins for a single service::

        class CartTests(ServiceSettingsMixin, TestCase):
            redis = TCPService("redis-server --port {port}")

            @classmethod
            def service_settings(cls):
                return {"CACHES.default.LOCATION": f"redis://{cls.redis.address}"}

    The settings hold from before Django's own ``setUpClass``, so that ``setUpTestData``, fixtures and the live server
    see them, until after the class. ``@override_settings``, on the class or on a test, goes over them.
    """

    _changed_settings: ClassVar[ExitStack]
    _has_settings = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        given = vars(cls).get("service_settings")
        if given is not None and not isinstance(given, classmethod):
            problem = f"it is {given!r}, but must be a class method that returns the settings: write @classmethod"
            raise DeclarationError(f"{label(cls)}.service_settings", problem)
        for base in cls.__mro__[cls.__mro__.index(ServiceSettingsMixin) + 1 :]:
            if "service_settings" in vars(base):
                problem = f"that of {label(base)} is never called, as it stands behind ServiceSettingsMixin"
                raise DeclarationError(f"{label(cls)}.service_settings", f"{problem}: name {base.__name__} before that")
        super().__init_subclass__(**kwargs)

    @classmethod
    def service_settings(cls) -> dict[str, Any]:
        """The settings to change while the class runs; called when its services are ready.

        A name alone gives the whole setting, as with ``override_settings``: a dict replaces the present one. A dotted
        path gives what is at that place within the present one, and all else stays: ``"CACHES.default.LOCATION"``, or,
        with an index, ``"TEMPLATES.0.DIRS"``.

        What a class returns takes the place of what its base returns: add that by ``**super().service_settings()``.

        :raises DeclarationError: (by the mixin) ``DATABASES``, a misspelt setting, or a place that is not there.
        """
        return {}

    @classmethod
    def setUpClass(cls) -> None:
        """Start the services and change the settings; then ``super().setUpClass()``."""
        cls._changed_settings = ExitStack()
        try:
            super().setUpClass()
        except Exception:
            raise
        except BaseException:  # After a KeyboardInterrupt or SystemExit no class cleanup is run.
            cls._changed_settings.close()
            raise

    @classmethod
    def _services_are_ready(cls) -> None:
        super()._services_are_ready()
        settings = changed(cls._given_settings(), f"{label(cls)}.service_settings", _REFUSED)
        cls.addClassCleanup(cls._changed_settings.close)
        cls._changed_settings.enter_context(override_settings(**settings))

    @classmethod
    def _given_settings(cls) -> dict[str, Any]:
        given = cls.service_settings()
        for placeholder in names(given):
            name, dot, offer = placeholder.partition(".")
            if dot and name in cls._service_plan.services:
                problem = f"{{{placeholder}}} is filled in only in CASEEXEC_SETTINGS and in declarations"
                way_out = f"write cls.{name}.{offer}, as the services run here"
                raise DeclarationError(f"{label(cls)}.service_settings", f"{problem}: {way_out}")
        return given
