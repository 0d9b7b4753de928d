"""Settings from and to text."""

import dataclasses
import json
import math
from typing import Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taichi_nerf.setting_values import parse, text
from taichi_nerf.settings import (
    OlderSettings,
    SettingsError,
    added,
    apply_settings,
    describe,
    differences,
    from_json_dict,
    to_json_dict,
)


@dataclasses.dataclass(frozen=True)
class Field:
    n_levels: int = 16
    n_features: int = 2
    resolutions: tuple[int, ...] = (16, 2048)
    activation: Literal["exp", "softplus"] = "exp"


@dataclasses.dataclass(frozen=True)
class Poses:
    refine: bool = False
    rate: float = 1e-3
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
    field: Field = Field()
    poses: Poses = Poses()
    background: Literal["white", "black", "random"] = "random"
    near: float = 0.1
    far: float | None = None
    step: float | Literal["auto"] = "auto"
    title: str = ""
    limits: tuple[float, float] = (0.0, 1.0)
    seed: Optional[int] = None  # noqa: UP045, the older spelling counts as well

    def __post_init__(self):
        if self.far is not None and self.far <= self.near:
            raise ValueError(f"far has to be beyond near, got {self.near} and {self.far}")


FINITE = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)  # Taichi, once started, flushes them to 0
WORDS = st.text() | st.sampled_from(["none", "None", "true", "1", "1e5", " a ", '"', "a,b", "(a)", "\n", "a b", "nan", "exp"])
VALUES = {
    "bool": (bool, st.booleans()),
    "int": (int, st.integers()),
    "float": (float, FINITE),
    "str": (str, WORDS),
    "literal": (Literal["none", "a b", 3], st.sampled_from(["none", "a b", 3])),
    "optional int": (int | None, st.none() | st.integers()),
    "optional str": (str | None, st.none() | WORDS),
    "any scalar": (int | float | bool | str | None, st.none() | st.integers() | st.booleans() | FINITE | WORDS),
    "ints": (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    "texts": (tuple[str, ...], st.lists(WORDS).map(tuple)),
    "optional texts": (tuple[str | None, ...] | None, st.none() | st.lists(st.none() | WORDS).map(tuple)),
    "pair": (tuple[float, str], st.tuples(FINITE, WORDS)),
}


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_every_value_of_every_type_comes_back_from_its_text(name, data):
    kind, values = VALUES[name]
    value = data.draw(values)
    back = parse(text(value), kind, "key")
    assert (repr(back), type(back)) == (repr(value), type(value))


CONFIGS = st.builds(
    Config,
    field=st.builds(
        Field, n_levels=st.integers(), resolutions=VALUES["ints"][1], activation=st.sampled_from(["exp", "softplus"])
    ),
    poses=st.builds(Poses, refine=st.booleans(), rate=FINITE, names=VALUES["texts"][1]),
    near=st.just(0.5),
    far=st.none() | st.floats(1, 1e9),
    step=FINITE | st.just("auto"),
    title=WORDS,
    limits=st.tuples(FINITE, FINITE),
    seed=st.none() | st.integers(),
)


@given(config=CONFIGS)
def test_settings_come_back_from_text_and_from_json(config):
    assert apply_settings(Config(), describe(config)) == config
    assert from_json_dict(Config, json.loads(json.dumps(to_json_dict(config), allow_nan=False))) == config


@given(a=CONFIGS, b=CONFIGS)
def test_applying_the_differences_turns_one_into_the_other(a, b):
    changes = [difference.split(": ", 1)[0] for difference in differences(a, b)]
    lines = {line.split(" = ", 1)[0]: line for line in describe(b)}
    assert apply_settings(a, [lines[key] for key in changes]) == b
    assert differences(a, a) == []


def test_values_are_read_by_the_type_of_their_field():
    config = apply_settings(
        Config(),
        ["field.n_levels=12", "poses.refine=Yes", "poses.rate=2", "far=none", "far=6", "title=a b, c=d", "limits=-1, 1"],
    )
    assert config.field == Field(n_levels=12)
    assert config.poses.refine is True
    assert (config.poses.rate, type(config.poses.rate)) == (2.0, float)
    assert (config.far, config.title, config.limits) == (6.0, "a b, c=d", (-1.0, 1.0))
    assert apply_settings(Config(), ["field.resolutions=[8,64,512]", "step=0.25", "seed=7"]).field.resolutions == (8, 64, 512)
    assert apply_settings(Config(), ["poses.names=front,back", "field.resolutions="]).poses.names == ("front", "back")


def test_settings_that_have_to_agree_may_come_in_any_order():
    for order in (["near=5", "far=6"], ["far=6", "near=5"]):
        assert apply_settings(Config(far=1.0), order).near == 5
    with pytest.raises(SettingsError, match=r"^settings: far has to be beyond near, got 5.0 and 1.0$"):
        apply_settings(Config(), ["near=5", "far=1"])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("field.n_level=12", "field.n_level: no such setting; did you mean field.n_levels? field has n_levels, n_features, "),
        ("n_levels=12", "n_levels: no such setting; did you mean field.n_levels? the top level has field, poses, background"),
        ("fields.n_levels=12", "fields.n_levels: no such setting; did you mean field.n_levels? the top level has"),
        ("zzz=1", "zzz: no such setting; the top level has"),
        ("field=3", "field: is a section; set one of field.n_levels, field.n_features"),
        ("near.x=3", "near.x: near is a single value, without settings of its own"),
        ("near", "'near': expected section.key=value"),
        ("field.n_levels=1.5", "field.n_levels: expected a whole number, got '1.5'"),
        ("near=wide", "near: expected a finite number, got 'wide'"),
        ("near=nan", "near: expected a finite number, got 'nan'"),
        ("near=-inf", "near: expected a finite number"),
        ("near=1e999", "near: expected a finite number"),
        ("poses.refine=maybe", "poses.refine: expected true or false, got 'maybe'"),
        ("background=whit", "background: expected one of white, black, random, got 'whit'; did you mean white?"),
        ("far=no", "far: expected a finite number or none, got 'no'"),
        ("step=slow", "step: expected a finite number or one of auto, got 'slow'"),
        ("limits=1,2,3", "limits: expected 2 items separated by commas: a finite number, a finite number; got 3"),
        ("field.resolutions=1,x", "field.resolutions: expected a whole number, got 'x'"),
        ('title="open', "title: expected a text, in quotes as in JSON or without any, got"),
        ('poses.names=a,"open', "poses.names: expected items separated by commas, each a text"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(setting, told):
    with pytest.raises(SettingsError) as caught:
        apply_settings(Config(), [setting])
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def changed(**values):
    return {**to_json_dict(Config()), **values}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed(gone=1), "run/config.json: unknown: gone; the file is of another version of taichi_nerf"),
        (changed(poses={**to_json_dict(Config())["poses"], "gone": 1}), "run/config.json: unknown: poses.gone; the file is of"),
        (changed(near="0.1"), "run/config.json: near: expected a finite number"),
        (changed(near=math.inf), "run/config.json: near: expected a finite number"),
        (changed(near=10**400), "run/config.json: near: expected a finite number"),
        (changed(near=True), "run/config.json: near: expected a finite number, got 'true'"),
        (changed(seed=1.5), "run/config.json: seed: expected a whole number or none, got '1.5'"),
        (changed(poses=3), "run/config.json: poses: expected an object of settings, got int"),
        (changed(limits=[1]), "run/config.json: limits: expected 2 items"),
        (changed(far=-1), "run/config.json: settings: far has to be beyond near"),
        ([], "run/config.json: settings: expected an object of settings, got list"),
    ],
)
def test_settings_that_cannot_be_read_are_told_in_one_line(data, told):
    with pytest.raises(SettingsError) as caught:
        from_json_dict(Config, data, "run/config.json")
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Scene:
    path: str
    downscale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Later:
    """What a later version has: a section and settings more, one of which the former did without."""

    scene: Scene
    field: Field = Field(n_levels=8)
    dropout: float = added(0.5, before=0.0)
    poses: Poses = Poses()


def test_what_an_older_file_does_not_say_is_as_it_was_before_and_is_told():
    data = {"scene": {"path": "chair"}, "field": {"n_features": 4, "resolutions": [4]}}
    with pytest.warns(OlderSettings) as told:
        config = from_json_dict(Later, data, "run/config.json")
    assert config == Later(Scene("chair"), Field(8, 4, (4,)), dropout=0.0)
    assert Later(Scene("chair")).dropout == 0.5
    assert [str(warning.message) for warning in told] == [
        "run/config.json: of an older version of taichi_nerf; what it does not say is taken as scene.downscale = 1.0, "
        "field.n_levels = 8, field.activation = exp, dropout = 0.0, poses.refine = false, poses.rate = 0.001, poses.names = ()"
    ]
    assert from_json_dict(Later, to_json_dict(config)) == config  # and no warning: it is all there


@pytest.mark.parametrize("data", [{}, {"scene": {}}, {"scene": {"downscale": 2.0}}])
def test_what_has_no_default_has_to_be_there(data):
    with pytest.raises(SettingsError, match=r"^run/config\.json: missing: scene\.path$"):
        from_json_dict(Later, data, "run/config.json")


def test_a_value_of_another_type_than_its_field_is_not_written():
    with pytest.raises(SettingsError, match=r"^poses\.rate: expected a finite number"):
        to_json_dict(Config(poses=Poses(rate=math.nan)))
