"""A folder of photos, or a video, to a posed scene, with COLMAP's Python package (extra `photos`).

Features (SIFT) are found in every picture and matched between all pairs, or between neighbours in a sequence; focal lengths that
no EXIF entry states are estimated from the pairs; then pictures are added one by one to a model. Of several models the largest is
kept. Pictures of one size, camera and focal length share a lens. OUT/images and OUT/sparse/0 are written when all is done.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taichi_nerf.report import Report
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.photo_steps import MATCHINGS, Steps
from taichi_nerf.scenes.unfinished import errors_name, hidden_place, require_free


@dataclass(frozen=True)
class PhotosReport:
    """What became of the pictures."""

    scene: Path
    n_photos: int
    n_registered: int
    failed: list[str]  # the names of those that were not registered
    passed_over: list[str]  # sentences about photos in the folder that were not taken
    n_points: int
    reprojection_error: float  # pixels, mean over points
    n_cameras: int
    n_blurred: int  # places in the video without a sharp frame
    n_models: int  # that the pictures fell apart into; the largest is the scene
    undistorted: bool


def photos_to_scene(
    source: Path,
    out: Path,
    *,
    matching: str = "auto",
    camera_model: str = "SIMPLE_RADIAL",
    max_image_size: int = 1600,
    max_features: int = 8192,
    n_frames: int = 150,
    undistort: bool = False,
    n_threads: int = -1,
    seed: int = 0,
    report: Report | None = None,
) -> PhotosReport:
    """Pose the pictures in `source` and write the scene to `out`, which must not exist or be empty.

    Features are looked for at `max_image_size`; the scene keeps the pictures as they are. `undistort` writes them without
    lens distortion instead, cropped to what all of it covers. Of a video, up to `n_frames` sharp frames are taken.
    """
    if not source.exists():
        raise SceneError(source, "no such file or folder")
    require_free(out)
    pycolmap = _pycolmap()
    if matching not in MATCHINGS:
        raise SceneError(source, f"expected one of {', '.join(MATCHINGS)}, got {matching!r}", "matching")
    if camera_model not in pycolmap.CameraModelId.__members__:
        known = ", ".join(sorted(name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"))
        raise SceneError("photos", f"COLMAP has no {camera_model!r}; it has {known}", "camera model")
    work = hidden_place(out)  # on the same disk, so that the last step is a renaming
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        with errors_name(out, work):
            work.mkdir(parents=True)
            steps = Steps(pycolmap, work, report or (lambda _fraction, _text: None), n_threads)
            frames = steps.gather(source, n_frames)
            steps.find_features(camera_model, max_image_size, max_features)
            steps.match(matching, sequence=frames is not None)
            models = steps.map(seed)
            if not models:
                raise SceneError(source, f"none of {len(steps.names)} pictures could be placed; they need texture and overlap")
            best = max(models, key=lambda model: (model.num_reg_images(), model.num_points3D()))
            best.update_point_3d_errors()
            steps.write(best, out, undistort)
    finally:
        pycolmap.logging.minloglevel = level
        shutil.rmtree(work, ignore_errors=True)
    placed = [best.image(number) for number in best.reg_image_ids()]
    failed = sorted({*steps.unreadable, *steps.names} - {image.name for image in placed})
    return PhotosReport(
        scene=out,
        n_photos=len(steps.names) + len(steps.unreadable),
        n_registered=len(placed),
        failed=failed,
        passed_over=steps.passed_over,
        n_points=best.num_points3D(),
        reprojection_error=float(best.compute_mean_reprojection_error()),
        n_cameras=len({image.camera_id for image in placed}),
        n_blurred=frames.n_blurred if frames else 0,
        n_models=len(models),
        undistorted=undistort,
    )


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError:
        raise SceneError("photos", 'needs pycolmap: pip install "pycolmap>=4"') from None
    if not hasattr(pycolmap, "calibrate_view_graph") or not hasattr(pycolmap, "CancellationToken"):
        raise SceneError("photos", f"pycolmap {pycolmap.__version__} is too old: pip install --upgrade pycolmap")
    return pycolmap
