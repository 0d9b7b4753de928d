"""What a scene is and how it was read: as a dictionary for programs, and as text for people."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from taichi_nerf.cameras import MODELS, Array, Cameras
from taichi_nerf.scenes.check import DAMAGED, Figure
from taichi_nerf.scenes.images import first_readable
from taichi_nerf.scenes.scene_data import SceneData

COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
FEW = 6  # lenses, sizes and view numbers that are spelt out


def describe(scene: SceneData, figures: list[Figure] | None = None) -> dict[str, Any]:
    """Numbers, names and sentences that JSON can hold."""
    to_file = scene.scene_from_source.inverse()
    return {
        "scene": str(scene.folder),
        "kind": scene.kind,
        "n_views": len(scene.names),
        "sizes": [{"width": w, "height": h, "n_views": n} for (w, h), n in _counted(scene.cameras.sizes)],
        "pictures": _pictures(scene),
        "lenses": lenses(scene.cameras),
        "splits": {name: index.tolist() for name, index in scene.splits.items()},
        "split_rule": scene.split_rule,
        "center": to_file(np.zeros((1, 3)))[0].tolist(),
        "scale": scene.scene_from_source.scale,
        "rotation": scene.scene_from_source.rotation.tolist(),
        "box": scene.bounds.box.tolist(),
        "near": scene.bounds.near,
        "far": scene.bounds.far,
        "unbounded": scene.bounds.unbounded,
        "forward_facing": scene.bounds.forward_facing,
        "ndc": None if scene.ndc is None else {"near": scene.ndc.near, "slopes": scene.ndc.slopes.tolist()},
        "masks": scene.masks is not None,
        "depths": _depths(scene),
        "n_points": 0 if scene.points is None else len(scene.points.positions),
        "n_observations": 0 if scene.points is None else len(scene.points.seen),
        "times": None if scene.times is None else [float(scene.times.min()), float(scene.times.max())],
        "notes": scene.notes,
        "warnings": scene.warnings,
        **({} if figures is None else {"checks": [_check(figure) for figure in figures]}),
    }


def _check(figure: Figure) -> dict[str, Any]:
    """What could not be measured has the value None: JSON has no word for NaN."""
    return {**vars(figure), "value": figure.value if math.isfinite(figure.value) else None}


def lenses(cameras: Cameras) -> list[dict[str, Any]]:
    """Every lens that differs in the first five digits, the most frequent first."""
    table = np.concatenate([cameras.models[:, None], cameras.intrinsics, cameras.distortion, cameras.sizes], -1)
    table = np.array([[float(f"{value:.4e}") for value in row] for row in table])
    found = []
    for row, n in _counted(table):
        model, k = MODELS[int(row[0])], row[5:13]
        bend = {name: float(value) for name, value in zip(COEFFICIENTS, k, strict=True) if value}
        angle = _field_of_view(model, row[1:5], row[13:])
        found.append(
            {
                "model": model,
                "intrinsics": [float(x) for x in row[1:5]],
                "distortion": bend,
                "n_views": n,
                "fov_degrees": angle,
            }
        )
    return found


def _field_of_view(model: str, intrinsics: Any, size: Any) -> list[float] | None:
    """Across and down, in degrees; None for parallel projections."""
    if model == "orthographic":
        return None
    half = np.asarray(size) / 2 / np.asarray(intrinsics[:2])
    angles = 2 * (half if model in ("equirectangular", "fisheye") else np.arctan(half))
    return [float(angle) for angle in np.degrees(angles)]


def _counted(rows: Array) -> list[tuple[Any, int]]:
    found, counts = np.unique(rows, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(found[i].tolist(), int(counts[i])) for i in order]


def _pictures(scene: SceneData) -> dict[str, Any]:
    first = first_readable(scene.images)
    return {"channels": first.shape[2], "type": str(first.dtype), "linear": scene.linear}


def _depths(scene: SceneData) -> dict[str, Any] | None:
    if scene.depths is None:
        return None
    return {"n_views": int((~scene.depths.missing).sum()), "kind": scene.depths.kind, "unit": scene.depths.unit}


def as_text(told: dict[str, Any]) -> str:
    """A summary to read: one fact a line, its name in the first column."""
    form, notes, placing = _sorted_notes(told)
    lines = [("scene", told["scene"]), ("form", form), ("views", _views(told))]
    lines += _column("lens", _lenses(told["lenses"]))
    lines += _column("split", [f"{name}: {_numbers(index)}" for name, index in told["splits"].items()])
    lines.append(("", told["split_rule"]))
    lines += _column("place", placing)
    lines += _column("has", [_extras(told)])
    lines += _column("note", notes)
    lines += _column("warning", told["warnings"])
    if "checks" in told:
        values = ["unknown" if c["value"] is None else f"{c['value']:.4g} {c['unit']}" for c in told["checks"]]
        checks = [f"{c['name']} {value} ({c['detail']})" for c, value in zip(told["checks"], values, strict=True)]
        agree = any(c["name"] != DAMAGED for c in told["checks"])
        none = "nothing to check cameras with: no tracks of points and no depth maps"
        lines += _column("check", checks if agree else [none, *checks])
    return "\n".join(f"{name:<8} {text}" for name, text in lines)


def _sorted_notes(told: dict[str, Any]) -> tuple[str, list[str], list[str]]:
    """The form and why, other notes, and the four that `normalise` adds last: center, axes, near and far, what is outside."""
    notes = list(told["notes"])
    form = notes.pop(0).removeprefix("read as ") if notes and notes[0].startswith("read as ") else told["kind"]
    return form, notes[:-4], notes[-4:]


def _column(name: str, texts: list[str]) -> list[tuple[str, str]]:
    """The name stands before the first line only."""
    return [(name if i == 0 else "", text) for i, text in enumerate(texts)]


def _views(told: dict[str, Any]) -> str:
    sizes = [f"{size['width']} x {size['height']}" for size in told["sizes"]]
    counted = [f"{text} ({size['n_views']})" for text, size in zip(sizes, told["sizes"], strict=True)]
    spelt = sizes[0] if len(sizes) == 1 else ", ".join(counted[:FEW]) + (" and other sizes" if len(sizes) > FEW else "")
    picture = told["pictures"]
    colors = {1: "grey", 3: "RGB", 4: "RGBA"}.get(picture["channels"], f"{picture['channels']} channels")
    return f"{told['n_views']} of {spelt}, {colors} {picture['type']}{', linear' if picture['linear'] else ''}"


def _lenses(told: list[dict[str, Any]]) -> list[str]:
    """Each lens; where there are many, what those of a model have in common."""
    if len(told) <= FEW:
        return [_lens(lens) for lens in told]
    lines = []
    for model in dict.fromkeys(lens["model"] for lens in told):
        those = [lens for lens in told if lens["model"] == model]
        values = dict(zip(("fx", "fy", "cx", "cy"), np.array([lens["intrinsics"] for lens in those]).T, strict=True))
        for name in COEFFICIENTS:
            values[name] = np.array([lens["distortion"].get(name, 0.0) for lens in those])
        spelt = "".join(f", {name} {_range(value)}" for name, value in values.items() if value.any())
        lines.append(f"{model}: {len(those)} different{spelt} ({sum(lens['n_views'] for lens in those)} views)")
    return lines


def _range(values: Array) -> str:
    low, high = f"{values.min():.5g}", f"{values.max():.5g}"
    return low if low == high else f"{low} to {high}"


def _lens(lens: dict[str, Any]) -> str:
    fx, fy, cx, cy = lens["intrinsics"]
    bend = "".join(f", {name} {value:.5g}" for name, value in lens["distortion"].items())
    angles = lens["fov_degrees"]
    sees = f", {angles[0]:.1f} x {angles[1]:.1f} degrees" if angles else ""
    views = f"{lens['n_views']} view{'' if lens['n_views'] == 1 else 's'}"
    return f"{lens['model']}: fx {fx:.2f}, fy {fy:.2f}, cx {cx:.2f}, cy {cy:.2f}{bend}{sees} ({views})"


def _numbers(index: list[int]) -> str:
    """How many, and which: a range, a stride, or the first few."""
    if len(index) <= 1:
        return f"{len(index)}" + (f" (view {index[0]})" if index else "")
    steps = {b - a for a, b in pairwise(index)}
    if steps == {1}:
        return f"{len(index)} (views {index[0]} to {index[-1]})"
    if len(steps) == 1 and len(index) > 2:
        return f"{len(index)} (views {index[0]}, {index[1]}, … {index[-1]})"
    few = ", ".join(map(str, index[: 2 * FEW]))
    return f"{len(index)} (views {few}{', …' if len(index) > 2 * FEW else ''})"


def _extras(told: dict[str, Any]) -> str:
    parts = ["masks"] if told["masks"] else []
    if told["depths"]:
        kind = {"z": "along the axis", "ray": "along the ray", "inverse": "inverse"}[told["depths"]["kind"]]
        parts.append(f"depth maps of {told['depths']['n_views']} views ({kind})")
    if told["n_points"]:
        seen = f" ({told['n_observations']} observations)" if told["n_observations"] else ""
        parts.append(f"{told['n_points']} points{seen}")
    if told["times"]:
        parts.append(f"times {told['times'][0]:g} to {told['times'][1]:g}")
    return ", ".join(parts) if parts else "no masks, depth maps or points"
