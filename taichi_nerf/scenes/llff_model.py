"""COLMAP's model beside an LLFF scene: its lens and its points, where it proves to be the model that the poses came from.

Complete, the proof is that its cameras stand where the poses say. Often images.bin is missing; then it is that the depths of the
points that each image saw have the 0.1 and 99.9 percentiles that the poses file gives as that image's bounds, which is how they
are made. The lens is believed if its focal length is that of the poses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from taichi_nerf.scenes import colmap_binary, colmap_text
from taichi_nerf.scenes.colmap import LARGEST_RESIDUAL, check_camera, points_of, read_model
from taichi_nerf.scenes.colmap_find import largest_model, models_in, subfolders
from taichi_nerf.scenes.colmap_lenses import lens_of
from taichi_nerf.scenes.colmap_model import Array, ColmapCamera, ColmapModel, ColmapPoints
from taichi_nerf.scenes.colmap_views import View, camera_to_world
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import LARGEST_NUMBER
from taichi_nerf.scenes.lens import Lens
from taichi_nerf.scenes.source import Points

PERCENTILES = (0.1, 99.9)
AGREEMENT = 0.01  # of depths, and of distances between cameras


@dataclass(frozen=True)
class Companion:
    """What the model gives to the scene; nothing if there is none that agrees."""

    lenses: list[Lens] | None = None  # [n_views] in COLMAP's pixels
    model: ColmapModel | None = None  # with images in the order of the poses
    bare_points: ColmapPoints | None = None  # of a model without images
    notes: list[str] = field(default_factory=list)

    def views(self, pictures: list[Path], poses: Array, lenses: list[Lens]) -> Iterator[View]:
        for i, picture in enumerate(pictures):
            lens = self.lenses[i] if self.lenses else lenses[i]
            seen_at, ids = np.zeros((0, 2)), np.zeros(0, np.int64)
            if self.model:
                seen_at, ids = self.model.images[i].keypoints, self.model.images[i].point_ids
            yield View(picture.name, picture, 0, poses[i], lens, seen_at, ids)

    def points(self, views: list[View]) -> Points | None:
        if self.model:
            return points_of(self.model.points, views, Path("points3D"))[0]
        if self.bare_points:
            sound = (np.abs(self.bare_points.positions) <= LARGEST_NUMBER).all(-1)
            return Points.without_tracks(self.bare_points.positions[sound], self.bare_points.colors[sound])
        return None


def companion_of(folder: Path, poses: Array, lenses: list[Lens], bounds: Array) -> Companion:
    """A damaged model beside a sound poses file is no reason not to open the scene: it is left out, and the notes say why."""
    try:
        places = models_in(folder)
        if places:
            place = largest_model(places)
            return _from_model(read_model(place.folder, place.extension), place.folder, poses, lenses)
        return _from_points(folder, poses, lenses, bounds)
    except SceneError as error:
        return Companion(notes=[f"COLMAP's model is not used: {error}"])


def _from_model(model: ColmapModel, where: Path, poses: Array, lenses: list[Lens]) -> Companion:
    images = sorted(model.images, key=lambda image: image.name)
    if len(images) != len(poses):
        return Companion(notes=[f"COLMAP's model is not used: it has {len(images)} images, there are {len(poses)} poses"])
    centers = np.stack([camera_to_world(image, where)[:, 3] for image in images])
    apart = np.linalg.norm(centers - poses[:, :, 3], axis=-1).max()
    if not apart <= AGREEMENT * np.linalg.norm(centers - centers.mean(0), axis=-1).max():
        return Companion(notes=["COLMAP's model is not used: its cameras are elsewhere than the poses"])
    by_id = {camera.id: camera for camera in model.cameras}
    chosen, why = _believed([by_id.get(image.camera) for image in images], lenses, where)
    model = ColmapModel(model.cameras, images, model.points)
    return Companion(
        chosen, model, notes=[f"{len(model.points.ids)} points with what each picture saw, from COLMAP's model", why]
    )


def _from_points(folder: Path, poses: Array, lenses: list[Lens], bounds: Array) -> Companion:
    """A model of cameras and points only."""
    for where in subfolders(folder):
        for form, extension in ((colmap_binary, ".bin"), (colmap_text, ".txt")):
            file, cameras_file = where / f"points3D{extension}", where / f"cameras{extension}"
            if not file.is_file():
                continue
            points = form.read_points(file)
            if not _bounds_agree(points, poses, bounds):
                return Companion(
                    notes=[f"the points of {file.relative_to(folder)} are not used: the bounds are not of their depths"]
                )
            cameras = form.read_cameras(cameras_file) if cameras_file.is_file() else []
            chosen, why = _believed([cameras[0] if len(cameras) == 1 else None] * len(poses), lenses, where)
            said = f"{len(points.ids)} points of {file.relative_to(folder)}: the bounds are the percentiles of their depths"
            return Companion(chosen, None, points, [said, why])
    return Companion(notes=["no COLMAP model beside it: pictures are taken as free of distortion"])


def _bounds_agree(points: ColmapPoints, poses: Array, bounds: Array) -> bool:
    """Images numbered in the order of their names, as COLMAP does it."""
    numbers = np.unique(points.track_images)
    if len(numbers) != len(poses):
        return False
    owners = np.repeat(np.arange(len(points.ids)), points.track_lengths)
    agree = []
    with np.errstate(all="ignore"):
        for number, pose, bound in zip(numbers, poses, bounds, strict=True):
            depths = (points.positions[owners[points.track_images == number]] - pose[:, 3]) @ pose[:, 2]
            agree.append(np.allclose(np.percentile(depths, PERCENTILES), bound, rtol=AGREEMENT))
    return float(np.mean(agree)) >= 0.9


def _believed(cameras: list[ColmapCamera | None], lenses: list[Lens], where: Path) -> tuple[list[Lens] | None, str]:
    """COLMAP's lenses for all views, or None and why not."""
    found = []
    for camera, lens in zip(cameras, lenses, strict=True):
        if camera is None:
            return None, "no lens for every picture in COLMAP's model: pictures are taken as free of distortion"
        check_camera(camera, where)
        theirs = lens_of(camera)
        focal = camera.parameters[0] * lens.size[0] / camera.width
        if not abs(focal / lens.intrinsics[0] - 1) < AGREEMENT or not theirs.residual <= LARGEST_RESIDUAL:
            return None, f"COLMAP's lens is not used: its focal length is not that of the poses ({focal:.5g})"
        found.append(theirs)
    distorted = sum(bool(lens.distortion.any()) for lens in found)
    return found, f"lens from COLMAP's model ({cameras[0].model if cameras[0] else ''}): {distorted} pictures have distortion"
