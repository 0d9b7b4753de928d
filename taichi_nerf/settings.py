"""Settings are nested frozen dataclasses; this is how they come from and go to text.

    apply_settings(config, ["field.n_levels=12", "poses.refine=true"])      --set on the command line
    describe(config)                       ["field.n_levels = 12", …]: each line is one that `apply_settings` takes
    from_json_dict(type(config), to_json_dict(config)) == config
    differences(config, other)             ["field.n_levels: 12 -> 16"]

A value is read by the type that its field is annotated with (`setting_values`). What a dataclass checks in `__post_init__` is
checked once, after all settings are applied, so settings that have to agree may be given in any order.

What an older version wrote lacks the settings that came later. `from_json_dict` gives them the values that leave things as they
were, and tells so:

    dropout: float = added(0.5, before=0.0)     # 0.5 by default; where a file does not say, 0
    n_numbers: int = 8                          # 8 in either case

So settings may be added; one that is renamed, or goes, makes the files that have it unreadable.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from taichi_nerf.setting_values import SettingsError, checked, parse, text

__all__ = [
    "OlderSettings",
    "SettingsError",
    "added",
    "apply_settings",
    "describe",
    "differences",
    "from_json_dict",
    "idle_in_sections",
    "refuse_idle",
    "to_json_dict",
]

Config = TypeVar("Config")
BEFORE = "before"  # in a field's metadata


class OlderSettings(UserWarning):
    """A file of an older version lacks settings; the message is one line and tells which values they were given."""


def added(default: Any, *, before: Any) -> Any:
    """A field that came later, when its default was not what the program had done until then: that is `before`."""
    return dataclasses.field(default=default, metadata={BEFORE: before})


def apply_settings(config: Config, settings: Sequence[str]) -> Config:
    """A copy with each `section.key=value` applied; of two for the same key the later counts."""
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, given = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise SettingsError(f"{setting!r}: expected section.key=value, as in --set field.n_levels=12")
        changes[key] = parse(given, _kind_of(config, key), key)
    return _replaced(config, changes, "")


def refuse_idle(config: Any, settings: Sequence[str], also: Mapping[str, str] = MappingProxyType({})) -> None:
    """Complain of a `section.key=value` that the others make idle, as the config's `without_effect` tells, or `also`."""
    idle = {**getattr(config, "without_effect", {}), **also}
    for setting in settings:
        key = setting.partition("=")[0].strip()
        why = idle.get(key.partition(".")[0]) or idle.get(key)
        if why:
            raise SettingsError(f"{setting}: has no effect {why}")


def idle_in_sections(config: Any) -> dict[str, str]:
    """What the `without_effect` of each section tells of its own, by full keys."""
    sections = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {f"{name}.{key}": why for name, of in sections.items() for key, why in getattr(of, "without_effect", {}).items()}


def to_json_dict(config: Any) -> dict[str, Any]:
    """Nested dicts of JSON's types, tuples as lists. A value that is not of its field's type is an error."""
    found: dict[str, Any] = {}
    for key, kind, value in _leaves(config):
        *sections, name = key.split(".")
        section = found
        for part in sections:
            section = section.setdefault(part, {})
        value = checked(value, kind, key)
        section[name] = list(value) if isinstance(value, tuple) else value
    return found


def from_json_dict(kind: type[Config], data: Any, source: str = "config.json") -> Config:
    """The settings that `to_json_dict` wrote, in this version or an older one; `source` names the file.

    A key that is not there takes what it was `before`, or else its default, and a warning (`OlderSettings`) lists those that have
    an effect. Unknown keys, such as a newer version's, values of another type, and the lack of what has no default are errors.
    """
    absent: dict[str, Any] = {}
    config = _from_json(kind, data, source, "", None, absent)
    idle = getattr(config, "without_effect", {})
    told = [f"{key} = {text(value)}" for key, value in absent.items() if not idle.keys() & {key, key.partition(".")[0]}]
    if told:
        what = f"{source}: of an older version of taichi_nerf; what it does not say is taken as {', '.join(told)}"
        warnings.warn(what, OlderSettings, stacklevel=2)
    return config


def describe(config: Any) -> list[str]:
    """Every setting as `section.key = value`."""
    return [f"{key} = {text(value)}" for key, _, value in _leaves(config)]


def differences(a: Any, b: Any) -> list[str]:
    """`section.key: value in a -> value in b` for every setting in which they differ."""
    if type(a) is not type(b):
        raise TypeError(f"cannot compare {type(a).__name__} with {type(b).__name__}")
    pairs = zip(_leaves(a), _leaves(b), strict=True)
    return [f"{key}: {text(x)} -> {text(y)}" for (key, _, x), (_, _, y) in pairs if x != y]


def _from_json(kind: Any, data: Any, source: str, section: str, default: Any, absent: dict[str, Any]) -> Any:
    """A section; `default` is what it is by default, if that is known. What is not there is added to `absent`."""
    where = f"{source}: {section.rstrip('.') or 'settings'}"
    if not isinstance(data, dict):
        raise SettingsError(f"{where}: expected an object of settings, got {type(data).__name__}")
    kinds = _kinds(kind)
    if unknown := data.keys() - kinds.keys():
        keys = ", ".join(section + name for name in sorted(unknown))
        raise SettingsError(f"{source}: unknown: {keys}; the file is of another version of taichi_nerf; use that one")
    values = {}
    for field in dataclasses.fields(kind):
        if field.name not in kinds:
            continue
        name, kind_of_value, key = field.name, kinds[field.name], section + field.name
        usual = field.default if default is None else getattr(default, name)
        if dataclasses.is_dataclass(kind_of_value):
            usual = None if usual is dataclasses.MISSING else usual
            values[name] = _from_json(kind_of_value, data.get(name, {}), source, key + ".", usual, absent)
        elif name in data:
            values[name] = checked(data[name], kind_of_value, f"{source}: {key}")
        else:
            values[name] = value = field.metadata.get(BEFORE, usual)
            if value is dataclasses.MISSING:
                raise SettingsError(f"{source}: missing: {key}")
            absent[key] = value
    try:
        return kind(**values)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def _kinds(kind: Any) -> dict[str, Any]:
    """The annotated type of each field."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _leaves(config: Any, section: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(full key, type, value) of every setting."""
    for name, kind in _kinds(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(kind):
            yield from _leaves(value, f"{section}{name}.")
        else:
            yield section + name, kind, value


def _kind_of(config: Any, key: str) -> Any:
    """The type of the setting with this key; an error that helps where there is none."""
    kind, section = type(config), ""
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind):
            raise SettingsError(f"{key}: {section[:-1]} is a single value, without settings of its own")
        kinds = _kinds(kind)
        if name not in kinds:
            raise SettingsError(_unknown(config, key, section, list(kinds)))
        kind, section = kinds[name], f"{section}{name}."
    if dataclasses.is_dataclass(kind):
        raise SettingsError(f"{key}: is a section; set one of {', '.join(section + name for name in _kinds(kind))}")
    return kind


def _unknown(config: Any, key: str, section: str, names: list[str]) -> str:
    """The nearest key is one of the same name elsewhere, or else the one most alike."""
    keys = [full for full, _, _ in _leaves(config)]
    name = key.rsplit(".", 1)[-1]
    elsewhere = [full for full in keys if full.rsplit(".", 1)[-1] == name]
    near = elsewhere or [section + n for n in get_close_matches(key[len(section) :], names, n=1)]
    near = near or get_close_matches(key, keys, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ";"
    return f"{key}: no such setting{hint} {section[:-1] or 'the top level'} has {', '.join(names)}"


def _replaced(config: Any, changes: dict[str, Any], section: str) -> Any:
    """The config with the changes below this section, built once, from the innermost out."""
    values = {}
    for name, kind in _kinds(type(config)).items():
        key = section + name
        if key in changes:
            values[name] = changes[key]
        elif dataclasses.is_dataclass(kind) and any(changed.startswith(key + ".") for changed in changes):
            values[name] = _replaced(getattr(config, name), changes, key + ".")
    try:
        return dataclasses.replace(config, **values)
    except ValueError as error:
        raise SettingsError(f"{section[:-1] or 'settings'}: {error}") from None
