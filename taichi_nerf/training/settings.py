"""Settings are nested frozen dataclasses; this is how they come from and go to text.

    apply_settings(config, ["field.n_levels=12", "poses.refine=true"])      --set on the command line
    describe(config)                       ["field.n_levels = 12", …]: each line is one that `apply_settings` takes
    from_json_dict(type(config), to_json_dict(config)) == config
    differences(config, other)             ["field.n_levels: 12 -> 16"]

A value is read by the type that its field is annotated with (`setting_values`). What a dataclass checks in `__post_init__` is
checked once, after all settings are applied, so settings that have to agree may be given in any order.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from taichi_nerf.training.setting_values import SettingsError, checked, parse, text

__all__ = ["SettingsError", "apply_settings", "describe", "differences", "from_json_dict", "to_json_dict"]

Config = TypeVar("Config")


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


def from_json_dict(kind: type[Config], data: Any, source: str = "config.json", section: str = "") -> Config:
    """The settings that `to_json_dict` wrote. Every key has to be there and none besides; `source` names the file in errors."""
    where = f"{source}: {section.rstrip('.') or 'settings'}"
    if not isinstance(data, dict):
        raise SettingsError(f"{where}: expected an object of settings, got {type(data).__name__}")
    kinds = _kinds(kind)
    for complaint, names in (("unknown", data.keys() - kinds.keys()), ("missing", kinds.keys() - data.keys())):
        if names:
            keys = ", ".join(section + name for name in sorted(names))
            raise SettingsError(f"{source}: {complaint}: {keys}; the file is of another version of taichi_nerf")
    values = {}
    for name, kind_of_value in kinds.items():
        if dataclasses.is_dataclass(kind_of_value):
            values[name] = from_json_dict(kind_of_value, data[name], source, f"{section}{name}.")  # type: ignore[arg-type]
        else:
            values[name] = checked(data[name], kind_of_value, f"{source}: {section}{name}")
    try:
        return kind(**values)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def describe(config: Any) -> list[str]:
    """Every setting as `section.key = value`."""
    return [f"{key} = {text(value)}" for key, _, value in _leaves(config)]


def differences(a: Any, b: Any) -> list[str]:
    """`section.key: value in a -> value in b` for every setting in which they differ."""
    if type(a) is not type(b):
        raise TypeError(f"cannot compare {type(a).__name__} with {type(b).__name__}")
    pairs = zip(_leaves(a), _leaves(b), strict=True)
    return [f"{key}: {text(x)} -> {text(y)}" for (key, _, x), (_, _, y) in pairs if x != y]


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
