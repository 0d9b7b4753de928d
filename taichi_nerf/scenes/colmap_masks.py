"""Masks beside the pictures of a COLMAP model: masks/a.jpg.png, as COLMAP itself takes them, or masks/a.png, for a.jpg.

What is black is not looked at. COLMAP and those who mask for it see the pixels as stored, so that a mask without an EXIF
orientation is turned with the picture that has one, unless its shape says that it was made of the picture as shown.
"""

from pathlib import Path

from taichi_nerf.scenes.colmap_find import MASK_NAMES, find_picture, inside_scene
from taichi_nerf.scenes.colmap_views import View
from taichi_nerf.scenes.images import stored_size
from taichi_nerf.scenes.shown import QUARTER_TURNS, alike, another_shape


def masks_of(
    folder: Path, pictures: Path, views: list[View], allow_outside: bool
) -> tuple[list[Path | None] | None, list[int], list[str], list[str]]:
    """Each view's mask, the quarter turns by which it is shown, notes and warnings; no list of masks if there are none."""
    smaller = pictures.name.removeprefix("images")  # masks_4 beside images_4
    names = [name + end for end in (smaller, "") for name in MASK_NAMES]
    above = folder if pictures == folder else pictures.parent
    place = next((place for place in (inner / name for inner in (above, folder) for name in names) if place.is_dir()), None)
    if place is None:
        return None, [], [], []
    told = place.relative_to(folder)
    masks: list[Path | None] = [
        found and inside_scene(folder, found, allow_outside, place)
        for view in views
        for found in [find_picture(place, view.name + ".png") or find_picture(place, view.name, other_endings=True)]
    ]
    n = sum(mask is not None for mask in masks)
    if not n:
        wanted = f"{told / views[0].name}.png or {told / Path(views[0].name).with_suffix('.png')}"
        return None, [], [], [f"{told} holds no mask of these pictures: expected names like {wanted}"]
    turns = [0 if mask is None else _turns_of(mask, view) for mask, view in zip(masks, views, strict=True)]
    return masks, turns, [f"{n} masks in {told}: what is black there is not looked at"], []


def _turns_of(mask: Path, view: View) -> int:
    """Clockwise quarter turns that bring the mask onto the picture as it is shown."""
    size, orientation = stored_size(mask)
    own = QUARTER_TURNS.get(orientation, 0)  # which reading it applies
    for turns in (view.turns, own):
        if alike(size[::-1] if turns % 2 else size, view.lens.size):
            return (turns - own) % 4
    raise another_shape(mask, "mask", size, view.lens.size)
