"""Which views are trained on and which are held out. No figure is ever of a view that was trained on."""

import numpy as np

from taichi_nerf.choices import Protocol
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import Array
from taichi_nerf.scenes.source import Source

HELD_OUT = 8  # LLFF's rule: views 0, 8, 16, … are the test
DTU_SIZES = (49, 64)  # pictures of a scan; those from 49 on are of its larger scans and not used
# Of DTU's 49 views those that pixelNeRF and RegNeRF train on, by their number; those that are too dark or too bright to test on.
DTU_TRAIN = (25, 22, 28, 40, 44, 48, 0, 8, 13)
DTU_UNUSED = (3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 36, 37, 38, 39)


def choose_splits(
    source: Source, views: list[int] | None = None, n_views: int | None = None, protocol: Protocol = "spread"
) -> tuple[dict[str, Array], str, list[str]]:
    """The splits, whose rule they follow, and notes. `views` or `n_views` restrict training; tests never grow by it.

    `protocol` chooses the n views: `spread`: far apart; `even`: evenly among their numbers, first and last included, as few-view
    papers do on LLFF's scenes; `dtu`: pixelNeRF's, with its 25 test views, of a scan that has no test views of its own.
    """
    n = len(source.names)
    notes: list[str] = []
    splits, rule, own = _given(source)
    if views is not None and n_views is not None:
        raise SceneError(source.folder, "give the number of views or the list of them, not both", "views")
    _check_protocol(source, protocol, n_views, own)
    if protocol == "dtu":
        test = np.setdiff1d(np.arange(49), DTU_TRAIN + DTU_UNUSED)
        splits, rule = {"train": np.array(DTU_TRAIN[:n_views], np.int64), "test": test}, "pixelNeRF's for DTU"
        notes.append(f"training on {n_views} views: {', '.join(map(str, splits['train']))}")
    elif n_views is not None:
        if not 1 <= n_views <= len(splits["train"]):
            raise SceneError(source.folder, f"expected 1 to {len(splits['train'])} training views, got {n_views}", "n-views")
        among = splits["train"]
        if protocol == "even":
            splits["train"] = among[np.rint(np.linspace(0, len(among) - 1, n_views)).astype(int)]
        else:
            splits["train"] = spread(source, among, n_views)
        how = "spread evenly" if protocol == "even" else "that are far apart"
        notes.append(f"training on {n_views} views {how}: {', '.join(map(str, splits['train']))}")
    if views is not None:
        wrong = [view for view in views if not 0 <= view < n]
        if wrong or not views:
            raise SceneError(source.folder, f"views are numbered 0 to {n - 1}, got {wrong[0] if wrong else 'none'}", "views")
        splits["train"] = np.unique(np.asarray(views, np.int64))
        moved = np.intersect1d(splits["train"], splits["test"])
        splits = {name: index if name == "train" else np.setdiff1d(index, splits["train"]) for name, index in splits.items()}
        if len(moved):
            notes.append(f"{len(moved)} of the views trained on left the test split")
    return splits, rule, notes


def _given(source: Source) -> tuple[dict[str, Array], str, bool]:
    """The scene's own splits, whose rule they follow, and whether it has test views of its own. What a file says is kept: without
    a test split the validation views are tested on, without a training split all others are trained on."""
    every = np.arange(len(source.names))
    given = {name: np.asarray(index, np.int64) for name, index in source.splits.items() if len(index)}
    rule = "the scene's own"
    if "test" not in given and "val" in given:
        given["test"] = given.pop("val")
        rule += "; its validation views are the test, as it has no others"
    among = given.get("train", np.setdiff1d(every, [*given.get("test", []), *given.get("val", [])]))
    if "test" in given and len(among):
        return {**given, "train": among}, rule, True
    among = among if len(among) else every  # nothing but views to test on
    held_out = among[::HELD_OUT] if len(among) > 1 else among[:0]
    rule = f"every {HELD_OUT}th view held out" + (" of those that the scene trains on" if len(among) < len(every) else "")
    return {"train": np.setdiff1d(among, held_out), "test": held_out}, rule, False


def _check_protocol(source: Source, protocol: Protocol, n_views: int | None, own: bool) -> None:
    """A protocol tells which n views are taken: there have to be an n, and views that it is for."""
    if protocol == "even" and n_views is None:
        raise SceneError(source.folder, "even tells which views --n-views takes; give --n-views", "protocol")
    if protocol != "dtu":
        return
    if len(source.names) not in DTU_SIZES:
        raise SceneError(source.folder, f"dtu is for scans of 49 or 64 views; there are {len(source.names)}", "protocol")
    if own:
        raise SceneError(source.folder, "dtu has test views of its own, and so has this scene; choose spread or even", "protocol")
    if n_views not in (3, 6, 9):
        raise SceneError(source.folder, "dtu tells which views --n-views takes; give --n-views 3, 6 or 9", "protocol")


def spread(source: Source, among: Array, k: int) -> Array:
    """k of the views, chosen greedily to be far from each other, starting with the one nearest to all."""
    centers = source.cameras.centers[among]
    size = np.linalg.norm(centers - centers.mean(0), axis=-1).max(initial=0) or 1.0
    place = np.concatenate([centers / size, source.cameras.forwards[among]], -1)
    chosen = [int(np.argmin(np.linalg.norm(place - place.mean(0), axis=-1)))]
    distance = np.linalg.norm(place - place[chosen[0]], axis=-1)
    while len(chosen) < k:
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(place - place[chosen[-1]], axis=-1))
    return np.sort(among[chosen])
