"""Ways to break single values of a scene's JSON and NumPy files, for `mutations`."""

import io
import json
import re

import numpy as np

ODD_PATHS = ("../../../../etc/passwd", "/etc/passwd", "..", ".", "C:\\x.png", "//", "image.png/x", "~", "%s%n", "")
ODD_PATHS += ("\0", "a" * 5000, "\ud800")
ODD_VALUES = (None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**400, "text", [], {}, [[]], [None], {"a": {}}, *ODD_PATHS)


def pick(scene, generator, wanted=lambda name, content: True):
    """A file at random; files that describe are preferred to pictures, of which there are many."""
    names = [name for name, content in scene.items() if isinstance(content, bytes) and wanted(name, content)]
    described = [name for name in names if not name.lower().endswith((".png", ".jpg"))]
    names = described if described and generator.random() < 0.8 else names
    return names[generator.integers(len(names))] if names else None


def one_of(values, generator):
    return values[generator.integers(len(values))]


def json_values(scene, generator):
    """One value, at any depth, becomes something else, or is gone."""
    name = pick(scene, generator, lambda name, _: name.endswith(".json"))
    try:
        data = json.loads(scene[name]) if name else None
    except (ValueError, RecursionError):
        return False
    places = list(containers(data))
    if not places:
        return False
    for _ in range(generator.integers(1, 3)):
        place = one_of(places, generator)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if keys:
            key = one_of(keys, generator)
            if generator.random() < 0.25:
                del place[key]
            else:
                place[key] = one_of(ODD_VALUES, generator)
    scene[name] = json.dumps(data).encode("utf-8", "surrogatepass")
    return True


def containers(node):
    """Objects and lists in a JSON value; of long lists a few, so that each field is met as often."""
    if isinstance(node, dict | list) and node:
        yield node
        for child in list(node.values() if isinstance(node, dict) else node[:2]):
            yield from containers(child)


def json_depth(scene, generator):
    name = pick(scene, generator, lambda name, content: name.endswith(".json") and b":" in content)
    if name is None:
        return False
    hits = list(re.finditer(rb":", scene[name]))
    at = hits[generator.integers(len(hits))].end()
    deep = b"[" * 100_000 + (b"]" * 100_000 if generator.random() < 0.5 else b"")
    scene[name] = scene[name][:at] + deep + b"," + scene[name][at:]
    return True


def numpy_arrays(scene, generator):
    """One array of an .npz or .npy becomes another, or is gone."""
    name = pick(scene, generator, lambda name, _: name.endswith((".npz", ".npy")))
    if name is None:
        return False
    try:
        loaded = np.load(io.BytesIO(scene[name]), allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except Exception:
        return False  # another way was here before
    key = one_of(sorted(arrays), generator) if arrays else ""
    if generator.random() < 0.15 and name.endswith(".npz"):
        arrays.pop(key, None)
    elif arrays:
        with np.errstate(all="ignore"):
            arrays[key] = odd_array(arrays[key], generator)
    target = io.BytesIO()
    if name.endswith(".npz"):
        np.savez(target, **arrays)
    else:
        np.save(target, arrays[""], allow_pickle=True)
    scene[name] = target.getvalue()
    return True


def odd_array(array, generator):
    changed = array.astype(np.float64) if array.dtype.kind in "fiub" else np.zeros(array.shape)
    one = changed.copy()
    if one.size:
        one.reshape(-1)[generator.integers(one.size)] = one_of([np.nan, np.inf, 1e300, -1e30, 0, -1], generator)
    scaled = [changed * factor for factor in (0, np.nan, 1e200, -1)]
    shaped = [changed[None], changed.reshape(-1), np.zeros(()), np.zeros((0, 3)), np.zeros((1,) * 40)]
    if array.ndim:
        shaped += [changed[:0], changed[..., :-1], np.concatenate([changed, changed])]
    typed = [changed.astype(kind) for kind in (str, complex, bool, "M8[s]", np.float16)]
    return one_of([one, one, one, *scaled, *shaped, *typed, np.array([None, "a"], object)], generator)
