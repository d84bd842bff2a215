"""The services of one test class, and which of them needs which."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caseexec.errors import DeclarationError
from caseexec.placeholders import nearest
from caseexec.service.base import SCOPES, Service

__all__ = ["Plan", "service_of"]

Declared = Service[Any]


@dataclass(frozen=True)
class Plan:
    """The services of one test class, checked.

    :ivar services: the declarations by name, each after those that it needs.
    :ivar needs: for each the names of those that must be ready before it.
    :ivar late: those that need what only the class knows, when its own set-up is done, and those that need these.
    """

    services: Mapping[str, Declared]
    needs: Mapping[str, frozenset[str]]
    late: frozenset[str] = frozenset()

    @classmethod
    def of(cls, services: Mapping[str, Declared], known: Sequence[tuple[str, Declared]] = ()) -> Plan:
        """Find out who needs whom.

        :param services: the declarations by name; their ``where`` says what errors call them.
        :param known: the declarations, with their names, that a reference may mean; also those that are replaced now.
        :raises DeclarationError: a service that is needed is not there, or can't be; or some wait for each other.
        """
        needs = {name: frozenset(_needs(name, services, known)) for name in services}
        try:
            order = list(graphlib.TopologicalSorter(needs).static_order())
        except graphlib.CycleError as error:
            circle = error.args[1][::-1]
            place = services[circle[0]].where.rstrip(".")
            told = f"{', which needs '.join(circle)}: none of them can be the first"
            raise DeclarationError(place, f"its services wait for each other: {told}") from None
        late: set[str] = set()
        for name in order:
            _check_scopes(name, services, needs[name])
            if services[name].of_class() or needs[name] & late:
                late.add(name)
        return cls({name: services[name] for name in order}, needs, frozenset(late))

    def only(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Who needs whom, among some of them."""
        chosen = set(names)
        return {name: self.needs[name] & chosen for name in self.services if name in chosen}


def _needs(name: str, services: Mapping[str, Declared], known: Sequence[tuple[str, Declared]]) -> Iterator[str]:
    service = services[name]
    for option, placeholder in service.placeholders():
        if "." in placeholder:
            yield service_of(placeholder, services, service.place(option))
    for reference in service.after:
        place = service.place("after")
        if isinstance(reference, Service):
            yield _name_of(place, reference, services, known)
        else:
            _check_name(place, "it names", reference, services)
            yield reference


def service_of(placeholder: str, services: Mapping[str, Declared], place: str) -> str:
    """The name of the service that a placeholder such as ``redis.port`` names.

    :param place: what errors call the option that it is in.
    :raises DeclarationError: there is none, or it has no such thing to tell.
    """
    other, _, fact = placeholder.partition(".")
    _check_name(place, f"the placeholder {{{placeholder}}} names", other, services)
    _check_fact(place, other, fact, services[other])
    return other


def _name_of(
    place: str, reference: Declared, services: Mapping[str, Declared], known: Sequence[tuple[str, Declared]]
) -> str:
    # The very one before an equal one.
    same = [name for name, service in known if service is reference]
    for name in same or [name for name, service in known if service == reference]:
        _check_name(place, "it names", name, services)
        return name
    problem = f"it names a {type(reference).__name__} ({reference.command!r}) that is no attribute of this class"
    raise DeclarationError(place, f"{problem}: declare that as one, too")


def _check_name(place: str, how: str, name: object, services: Mapping[str, Declared]) -> None:
    if name not in services:
        there = f"there is no such service (there are {', '.join(services) or 'none'})" + nearest(str(name), services)
        raise DeclarationError(place, f"{how} {name!r}, but {there}")


def _check_fact(place: str, other: str, fact: str, service: Declared) -> None:
    kind = type(service).__name__
    if fact not in service.offers:
        told = f"a {kind} has no {fact!r} to tell, only {', '.join(service.offers)}{nearest(fact, service.offers)}"
        raise DeclarationError(place, f"the placeholder {{{other}.{fact}}} can't be filled: {told}")
    if fact in service.of_port and not service.has_port():
        problem = f"{other} has no port: name it in its command, or give it one"
        raise DeclarationError(place, f"the placeholder {{{other}.{fact}}} can't be filled: {problem}")


def _check_scopes(name: str, services: Mapping[str, Declared], needs: frozenset[str]) -> None:
    service = services[name]
    for option, placeholder in service.of_class():
        if SCOPES.index(service.scope) > SCOPES.index("class"):
            problem = f"it is {service.scope!r}, but {{{placeholder}}} (in {option}) is of one class only"
            raise DeclarationError(service.place("scope"), f"{problem}: give it the scope 'class'")
    for other in sorted(needs):
        theirs = services[other].scope
        if SCOPES.index(theirs) < SCOPES.index(service.scope):
            problem = f"it is {service.scope!r}, but it needs {other}, which ends sooner, as its scope is {theirs!r}"
            raise DeclarationError(service.place("scope"), f"{problem}: give {other} the same scope, or a wider one")
