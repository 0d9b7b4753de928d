"""COLMAP's sparse models, binary and text, of one or several cameras, with pictures that are undistorted or not.

A scene is a folder with a model somewhere in it (sparse/0, sparse, colmap/sparse/0, colmap_text, the folder itself) and its
pictures. Poses turn from world-to-camera into camera-to-world; the lens is kept (`colmap_lenses.py`); points come with where
each picture saw them. COLMAP counts pixels as we do: the centre of the first at (0.5, 0.5).
"""

from collections import Counter
from pathlib import Path

import numpy as np

from taichi_nerf.scenes import colmap_binary, colmap_text
from taichi_nerf.scenes.colmap_find import find_picture, inside_scene, is_whole_below, largest_model, models_in, picture_folder
from taichi_nerf.scenes.colmap_lenses import ONE_FOCAL, lens_of
from taichi_nerf.scenes.colmap_masks import masks_of
from taichi_nerf.scenes.colmap_model import ColmapCamera, ColmapImage, ColmapModel, ColmapPoints, make_points
from taichi_nerf.scenes.colmap_views import View, view_of
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import LARGEST_NUMBER, matrix, number
from taichi_nerf.scenes.images import LARGEST_IMAGE, list_images, natural_key
from taichi_nerf.scenes.lens import cameras_of
from taichi_nerf.scenes.source import Points, Source

LARGEST_RESIDUAL = 0.5  # pixels that a fitted lens may be off


def fits(folder: Path) -> str:
    places = models_in(folder)
    return places[0].named_from(folder) if places and not is_whole_below(folder, places) else ""


def read(folder: Path, allow_outside: bool) -> Source:
    places = models_in(folder)
    if not places:
        raise SceneError(folder, "holds no COLMAP model: expected cameras and images, both .bin or both .txt")
    place = largest_model(places)
    inside_scene(folder, place.folder, allow_outside, folder)
    model = read_model(place.folder, place.extension)
    images_file = place.folder / f"images{place.extension}"
    if not model.images:
        raise SceneError(images_file, "lists no images: nothing was registered")
    cameras = _by_id(model.cameras, place.folder / f"cameras{place.extension}")
    images, warnings = _images_once(model.images, cameras, images_file)
    pictures, other_endings = picture_folder(folder, place, images, cameras)
    lenses = {camera: lens_of(cameras[camera]) for camera in {image.camera for image in images}}
    views, missing = [], []
    for image in images:
        file = find_picture(pictures, image.name, other_endings)
        checked = inside_scene(folder, file or pictures / image.name, allow_outside, images_file)
        if file is None:
            missing.append(image.name)
        else:
            views.append(view_of(image, checked, lenses[image.camera], images_file))
    _refuse_bad_fits(views, cameras, place.folder)
    if missing:
        warnings.append(f"{len(missing)} of {len(images)} pictures are missing and left out, the first is {missing[0]}")
    points, lost = points_of(model.points, views, place.folder / f"points3D{place.extension}")
    masks, mask_turns, mask_notes, lost_masks = masks_of(folder, pictures, views, allow_outside)
    notes = [f"model {place.folder.relative_to(folder)} ({place.extension[1:]}), pictures in {pictures.relative_to(folder)}"]
    if len(places) > 1:
        notes[0] += f"; {len(places) - 1} more in the folder, this one has most images"
    return Source(
        kind="colmap",
        folder=folder,
        names=[view.name for view in views],
        cameras=cameras_of([view.pose for view in views], [view.lens for view in views]),
        image_files=[view.file for view in views],
        mask_files=masks,
        mask_turns=mask_turns,
        points=points,
        unbounded=True,
        notes=notes + mask_notes + _notes(views, cameras, points, pictures),
        warnings=warnings + lost_masks + lost,
    )


def read_model(folder: Path, extension: str) -> ColmapModel:
    """A folder's model, extension ".bin" or ".txt". Without points3D it has no points."""
    form = colmap_text if extension == ".txt" else colmap_binary
    points = folder / f"points3D{extension}"
    return ColmapModel(
        form.read_cameras(folder / f"cameras{extension}"),
        form.read_images(folder / f"images{extension}"),
        form.read_points(points) if points.is_file() else make_points([], [], []),
    )


def _by_id(cameras: list[ColmapCamera], file: Path) -> dict[int, ColmapCamera]:
    for camera in cameras:
        check_camera(camera, file)
    found = {camera.id: camera for camera in cameras}
    if len(found) != len(cameras):
        raise SceneError(file, "has several cameras of one number")
    return found


def check_camera(camera: ColmapCamera, file: Path) -> None:
    """Its size and parameters can be."""
    field = f"camera {camera.id}"
    for side in (camera.width, camera.height):
        number(side, file, f"{field}: size", 1, LARGEST_IMAGE)
    matrix(camera.parameters, (len(camera.parameters),), file, field)
    if min(camera.parameters[: 1 if camera.model in ONE_FOCAL else 2]) <= 0:
        raise SceneError(file, "expected a focal length above zero", field)


def _images_once(images: list[ColmapImage], cameras: dict[int, ColmapCamera], file: Path) -> tuple[list[ColmapImage], list[str]]:
    """In natural order of their names, so that the order of the file does not matter; each name once."""
    if len({image.id for image in images}) != len(images):
        raise SceneError(file, "has several images of one number")
    for image in images:
        if not image.name or "\0" in image.name:
            raise SceneError(file, f"expected a file name, got {image.name!r}", f"image {image.id}")
        if image.camera not in cameras:
            raise SceneError(file, f"names camera {image.camera}, which the model does not have", f"image {image.id}")
    once = {image.name: image for image in sorted(images, key=lambda image: -image.id)}
    twice = len(images) - len(once)
    warnings = [f"{twice} images are listed again under a name that was there; the first of each was taken"] if twice else []
    return sorted(once.values(), key=lambda image: natural_key(image.name)), warnings


def _refuse_bad_fits(views: list[View], cameras: dict[int, ColmapCamera], folder: Path) -> None:
    for view in views:
        if not view.lens.residual <= LARGEST_RESIDUAL:
            camera = cameras[view.camera]
            raise SceneError(
                folder,
                f"no lens of ours comes closer to this {camera.model} than {view.lens.residual:.2f} px "
                f"(at most {LARGEST_RESIDUAL} px are accepted); undistort the pictures with `colmap image_undistorter`",
                f"camera {camera.id}",
            )


def points_of(points: ColmapPoints, views: list[View], file: Path) -> tuple[Points | None, list[str]]:
    """The points by their number, with what the views saw of them, and warnings."""
    if len(np.unique(points.ids)) != len(points.ids):
        raise SceneError(file, "has several points of one number")
    order = np.argsort(points.ids)
    sound = np.asarray((np.abs(points.positions) <= LARGEST_NUMBER).all(-1))  # which NaN is not
    order = order[sound[order]]
    if not len(order):
        return None, ["none of the points has a finite position"] if len(points.ids) else []
    ids = points.ids[order]
    seen_by, seen, seen_at, unknown = [], [], [], 0
    for i, view in enumerate(views):
        wanted = view.point_ids
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        known = ids[place] == wanted
        unknown += int((~known & (wanted >= 0)).sum())
        seen_by.append(np.full(known.sum(), i, np.int64))
        seen.append(place[known])
        seen_at.append(view.seen_at[known])
    warnings = []
    if len(order) < len(points.ids):
        warnings.append(f"{len(points.ids) - len(order)} of {len(points.ids)} points have no finite position and are left out")
    if unknown:
        warnings.append(f"{unknown} observations are of points that {file.name} does not have; they are left out")
    at = np.concatenate(seen_at)
    stated = points.errors[order]
    errors = stated * _mean_scale(views) if ((stated >= 0) & (stated < 1e6)).all() and stated.any() else None  # -1: not stated
    found = Points(points.positions[order], points.colors[order], np.concatenate(seen_by), np.concatenate(seen), at, errors)
    return found, warnings


def _mean_scale(views: list[View]) -> float:
    """The pictures' pixels per pixel of the file."""
    return float(np.mean([np.sqrt(np.prod(view.scale)) for view in views]))


def _notes(views: list[View], cameras: dict[int, ColmapCamera], points: Points | None, pictures: Path) -> list[str]:
    used = Counter(cameras[view.camera].model for view in views)
    n_cameras = len({view.camera for view in views})
    notes = [
        f"{n_cameras} camera{'s' if n_cameras > 1 else ''}: " + ", ".join(f"{model} ({n} views)" for model, n in used.items())
    ]
    fitted = {view.camera: view for view in views if view.lens.mean_residual}
    for camera, view in fitted.items():
        notes.append(
            f"camera {camera}: {cameras[camera].model} fitted by a fisheye with four coefficients, off by at most "
            f"{view.lens.residual:.2g} px, on average {view.lens.mean_residual:.2g} px"
        )
    resized = [view for view in views if view.scale != (1.0, 1.0)]
    if resized:
        first = resized[0]
        notes.append(
            f"{len(resized)} pictures are not of their camera's size: intrinsics scaled "
            f"(x {first.scale[0]:.4g}, y {first.scale[1]:.4g} for {first.name})"
        )
    turned = [view for view in views if view.turns]
    if turned:
        notes.append(f"{len(turned)} pictures have an EXIF orientation, which COLMAP ignores: their cameras are turned with them")
    n_spare = len(list_images(pictures)) - len(views) if all("/" not in view.name for view in views) else 0
    if n_spare > 0:
        notes.append(f"{n_spare} pictures in the folder are not in the model")
    if points is None:
        return [*notes, "no points"]
    own = "" if points.errors is None else f", the file's own mean reprojection error {points.errors.mean():.3f} px"
    return [*notes, f"{len(points.positions)} points, {len(points.seen)} observations{own}"]
