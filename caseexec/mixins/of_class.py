"""What a test class knows when its own set-up is done, for the services that must wait for that; and its slips."""

from __future__ import annotations

from caseexec.errors import DeclarationError
from caseexec.placeholders import OF_CLASS
from caseexec.service import Plan, Service

__all__ = ["check_class_values", "check_slips", "class_values", "label"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True


def label(cls: type) -> str:
    """What errors call a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def check_slips(cls: type, has_settings: bool) -> None:
    """Refuse what a class says and nobody would listen to.

    :param has_settings: whether its ``service_settings`` is called.
    :raises DeclarationError: there is such a thing.
    """
    for name, value in vars(cls).items():
        # A kind of one's own, defined in the class, has its own name.
        if isinstance(value, type) and issubclass(value, Service) and name not in (value.__name__, "_service_kind"):
            problem = f"{value.__name__} is a kind of service and none itself"
            raise DeclarationError(f"{label(cls)}.{name}", f"{problem}: write {value.__name__}(...)")
    is_djangos = any(base.__module__.startswith("django.test") for base in cls.__mro__)
    if is_djangos and not has_settings and _owners(cls, "service_settings"):
        way_out = "derive from caseexec.django.ServiceSettingsMixin in place of ServicesMixin, or beside another mixin"
        raise DeclarationError(f"{label(cls)}.service_settings", f"nothing calls it: {way_out}")


def class_values(cls: type) -> dict[str, str]:
    """What the placeholders stand for that the class knows."""
    return {name: str(_value(cls, name)) for name in OF_CLASS if _owners(cls, name)}


def check_class_values(cls: type, mixin: type, plan: Plan) -> None:
    """Refuse placeholders that a class can't fill, or not in time.

    :param mixin: whose set-up starts the services.
    :raises DeclarationError: there is such a one.
    """
    for service in plan.services.values():
        for option, name in service.of_class():
            owners = _owners(cls, name)
            problem = f"{{{name}}} can't be filled, as {label(cls)}"
            if not owners:
                way_out = "derive it from django.test.LiveServerTestCase, or from another class with a live server"
                raise DeclarationError(service.place(option), f"{problem} has no {name}: {way_out}")
            # Whoever stands before the mixin has done its own set-up only after the mixin's.
            if cls.__mro__.index(owners[-1]) < cls.__mro__.index(mixin) and not isinstance(_raw(cls, name), str):
                order = f"names {owners[-1].__name__} before caseexec's mixin: name the mixin first among its bases"
                raise DeclarationError(service.place(option), f"{problem} {order}")


def _owners(cls: type, name: str) -> list[type]:
    """The classes that have that attribute, the most basic last."""
    return [base for base in cls.__mro__ if name in vars(base)]


def _raw(cls: type, name: str) -> object:
    return vars(_owners(cls, name)[0])[name]


def _value(cls: type, name: str) -> object:
    found = _raw(cls, name)
    # Channels has a property, for instances, of what the class knows.
    return found.fget(cls) if isinstance(found, property) and found.fget else getattr(cls, name)
