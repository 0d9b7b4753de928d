"""One setting's value: from text, to text, and whether it is of the type that its field names.

| type | text | |
|---|---|---|
| `bool` | `true` `false` `yes` `no` `1` `0` | |
| `int`, `float` | `12`, `1e-3` | finite |
| `str` | `chair`, `"two words, and a comma"` | quotes as in JSON, where the plain word could be read as something else |
| `Literal["a", "b"]` | `a` | |
| `tuple[int, ...]`, `tuple[float, float]` | `1,2,3`, `(1, 2, 3)`, `()` | items of any type but tuples |
| `X or None`, `X or Y` | `none`, or that of X or of Y | the first that fits, strings last |

`parse(text(value), kind) == value` for every value of every such type.
"""

import json
import re
import sys
import types
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
PLAIN_WORD = re.compile(r"[^\W\d][\w./:@+-]*")  # a string that needs no quotes
ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,"]*)\s*(?:,|$)')  # of a tuple
LARGEST = sys.float_info.max
# A union is tried in this order, so that the widest type does not take what another means.
ORDER: list[Any] = [type(None), Literal, int, float, bool, tuple, str]


class SettingsError(ValueError):
    """A setting that does not exist or has a value of another type, in one line."""


def parse(given: str, kind: Any, key: str) -> Any:
    """The value that a text stands for."""
    given, kind = given.strip(), _resolved(kind)
    origin = get_origin(kind)
    if origin is tuple:
        items = _split(given, kind, key)
        return tuple(parse(item, k, key) for item, k in zip(items, _kinds_of_items(kind, items, key), strict=True))
    if origin is Literal:
        for choice in get_args(kind):
            if given in (text(choice), str(choice)):
                return choice
    elif _is_union(kind):
        for alternative in _alternatives(kind):
            try:
                return parse(given, alternative, key)
            except SettingsError:
                continue
    elif kind is str:
        return _unquoted(given, key)
    elif kind is bool and given.lower() in TRUE + FALSE:
        return given.lower() in TRUE
    elif kind is type(None) and given.lower() == "none":
        return None
    elif kind in (int, float):
        try:
            return checked(kind(given), kind, key)
        except (ValueError, OverflowError):
            pass
    elif kind not in (bool, type(None)):
        raise TypeError(f"{key}: {kind} is no type of a setting")
    raise _refusal(given, kind, key)


def text(value: Any) -> str:
    """What `parse` reads back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"({', '.join(map(text, value))})"
    if isinstance(value, str):
        means_something = value.lower() in (*TRUE, *FALSE, "none", "nan", "inf", "infinity")
        return value if PLAIN_WORD.fullmatch(value) and not means_something else json.dumps(value)
    return repr(value)


def checked(value: Any, kind: Any, key: str) -> Any:
    """The value if it is of this type (lists as tuples, whole numbers as floats where JSON has them so)."""
    kind = _resolved(kind)
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(checked(item, k, key) for item, k in zip(value, _kinds_of_items(kind, value, key), strict=True))
    if get_origin(kind) is Literal:
        if any(type(value) is type(choice) and value == choice for choice in get_args(kind)):
            return value
    elif _is_union(kind):
        for alternative in _alternatives(kind):
            try:
                return checked(value, alternative, key)
            except SettingsError:
                continue
    elif kind is float and type(value) in (int, float) and abs(value) <= LARGEST:
        return float(value)
    elif kind in (int, bool, str, type(None)) and type(value) is kind:
        return value
    raise _refusal(text(value), kind, key)


def expected(kind: Any) -> str:
    """A type in words."""
    kind = _resolved(kind)
    words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", type(None): "none"}
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(text, get_args(kind)))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        if others == [...]:
            return f"items separated by commas, each {expected(first)}"
        return f"{1 + len(others)} items separated by commas: " + ", ".join(map(expected, get_args(kind)))
    if _is_union(kind):
        return " or ".join(expected(k) for k in get_args(kind))
    return words.get(kind, str(kind))


def _refusal(given: str, kind: Any, key: str) -> SettingsError:
    near = get_close_matches(given, map(text, get_args(kind)), n=1) if get_origin(kind) is Literal else []
    hint = f"; did you mean {near[0]}?" if near else ""
    return SettingsError(f"{key}: expected {expected(kind)}, got {given[:80]!r}{hint}")


def _resolved(kind: Any) -> Any:
    """What an alias made with Python 3.12's `type` statement stands for."""
    return getattr(kind, "__value__", kind)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _alternatives(kind: Any) -> list[Any]:
    found = list(map(_resolved, get_args(kind)))
    if not all((get_origin(k) or k) in ORDER for k in found):
        raise TypeError(f"{kind} is no type of a setting")
    return sorted(found, key=lambda k: ORDER.index(get_origin(k) or k))


def _kinds_of_items(kind: Any, items: list[Any] | tuple[Any, ...], key: str) -> list[Any]:
    kinds = get_args(kind)
    if kinds[-1] is ...:
        return [kinds[0]] * len(items)
    if len(items) != len(kinds):
        raise SettingsError(f"{key}: expected {expected(kind)}; got {len(items)}")
    return list(kinds)


def _split(given: str, kind: Any, key: str) -> list[str]:
    """The items of a tuple; commas in quotes separate nothing."""
    inside = given[1:-1].strip() if given[:1] + given[-1:] in ("()", "[]") else given
    items, at = [], 0
    while at < len(inside):
        found = ITEM.match(inside, at)
        if not found:
            raise _refusal(given, kind, key)
        items.append(found[1].strip())
        at = found.end()
    return items


def _unquoted(given: str, key: str) -> str:
    if not given.startswith('"'):
        return given
    try:
        return str(json.loads(given))
    except ValueError:
        raise SettingsError(f"{key}: expected a text, in quotes as in JSON or without any, got {given[:80]!r}") from None
