"""Changes of settings: of a whole one, or, in the dotted form, of what is within one."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from django.conf import settings

from caseexec.errors import DeclarationError
from caseexec.placeholders import nearest

__all__ = ["changed", "name_problem"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

# From this likeness on a new name is taken for an old one that was misspelt: CASHES for CACHES, but not REDIS_URL for
# MEDIA_URL. Of an application whose settings are all at their defaults nobody knows the names.
_ALIKE = 0.8


def changed(changes: object, where: str, refused: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """The settings by name, as they are when some are changed; the present ones are left as they are.

    A name alone (``"CACHES"``) stands for the whole setting. A dotted path (``"CACHES.default.LOCATION"``,
    ``"TEMPLATES.0.DIRS"``) stands for a place within one; all beside it stays. A key that has dots itself is found
    (``"LOGGING.loggers.django.request.level"``). Whole ones are changed first, then the others in their order.

    :param where: what errors call it.
    :param refused: the settings that can't be changed here, with the reason and the way out.
    :raises DeclarationError: there is no such setting, or no such place within one.
    """
    if not isinstance(changes, Mapping) or not all(isinstance(path, str) for path in changes):
        raise DeclarationError(
            where, f"a {type(changes).__name__} is no dict of settings by name: write {{'NAME': value}}"
        )
    found: dict[str, Any] = {}
    for path in sorted(changes, key=lambda path: "." in path):
        name, *keys = path.split(".")
        if problem := refused.get(name) or name_problem(name):
            raise DeclarationError(where, problem)
        if keys and name not in found and not hasattr(settings, name):
            raise DeclarationError(where, f"there is no {name} in which {path!r} could be: give {name} whole")
        try:
            present = found[name] if name in found else getattr(settings, name, None)
            found[name] = _put(present, keys, changes[path], name)
        except LookupError as error:
            raise DeclarationError(where, f"there is no place {path!r}: {error.args[0]}") from None
    return found


def name_problem(name: str) -> str:
    """What is wrong with the name of a setting; empty: nothing."""
    known = [known for known in dir(settings) if known.isupper()]
    if name in known:
        return ""
    if not name.isidentifier() or not name.isupper():
        return f"{name!r} is no name of a setting, which has capitals only{nearest(name.upper(), known)}"
    if hint := nearest(name, known, _ALIKE):
        return f"there is no setting {name}{hint} If it is a new one, give it any value in the project's settings"
    return ""


def _put(present: Any, keys: Sequence[str], value: Any, so_far: str) -> Any:
    """A copy of what is there, with a value put in at a path."""
    if not keys:
        return value
    if isinstance(present, Mapping):
        key, rest = _key(present, keys, so_far)
    elif isinstance(present, (list, tuple)):
        key, rest = _index(present, keys[0], so_far), keys[1:]
    else:
        raise LookupError(f"{so_far} is a {type(present).__name__}, and nothing is in that")
    made: Any = list(present) if isinstance(present, tuple) else copy.copy(present)
    made[key] = _put(present[key] if rest else None, rest, value, f"{so_far}.{key}")
    return tuple(made) if isinstance(present, tuple) else made


def _key(present: Mapping[Any, Any], keys: Sequence[str], so_far: str) -> tuple[Any, Sequence[str]]:
    """The key in a dict that a path goes on with, and what is left of the path."""
    for end in range(len(keys), 0, -1):
        for key in present:
            if str(key) == ".".join(keys[:end]):
                return key, keys[end:]
    hint = nearest(keys[0], map(str, present), _ALIKE if len(keys) == 1 else 0.6)
    if len(keys) > 1 or (hint and not any(_are_numbered(keys[0], key) for key in present)):
        raise LookupError(f"{so_far} has no {keys[0]!r}{hint or '.'} What is new, give whole")
    return keys[0], ()


def _are_numbered(key: str, other: object) -> bool:
    """Whether two differ in their numbers only, as ``default`` and ``default2``."""
    return re.sub(r"\d", "", key) == re.sub(r"\d", "", str(other))


def _index(present: Sequence[Any], text: str, so_far: str) -> int:
    if not text.isdecimal() or int(text) >= len(present):
        raise LookupError(f"{so_far} has {len(present)} items, so that {text!r} is no index: to add one, give it whole")
    return int(text)
