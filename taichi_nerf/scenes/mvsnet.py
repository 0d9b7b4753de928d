"""MVSNet's scenes, and BlendedMVS as it is distributed. MVSNet's training set has its scans side by side: `mvsnet_scans`.

    cams/00000000_cam.txt          "extrinsic", 4 x 4 world to camera (x right, y down, z forward); "intrinsic", 3 x 3; and a line
                                   depth_min, depth_interval, and in some sets the number of depths and depth_max
    images/00000000.jpg            or blended_images/; pictures with _masked in their name are copies and no views
    rendered_depth_maps/….pfm      BlendedMVS: depths along the optical axis in the file's lengths, 0 where nothing was rendered
    pair.txt                       which views see the same; not needed here

Without a number of depths, MVSNet's own 192 give the far end. Intrinsics are scaled when the pictures have another size than the
principal points suggest: MVSNet's training cameras are for a quarter of it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from taichi_nerf.cameras import invert_poses, make_cameras
from taichi_nerf.scenes import mvsnet_scans
from taichi_nerf.scenes.camera_matrices import fit_to_pictures, pinhole
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import inside, number, pose, read_text
from taichi_nerf.scenes.images import has_alpha, image_size, list_images, natural_key
from taichi_nerf.scenes.source import Array, DepthFiles, Source, counted

IMAGE_FOLDERS, DEPTH_FOLDERS = ("images", "blended_images", "image"), ("rendered_depth_maps", "depths", "depth")
SUFFIX = "_cam.txt"
N_DEPTHS = 192
N_NUMBERS = 16 + 9  # before the depths
LONGEST = 4096  # letters of a camera file


class View(NamedTuple):
    pose: Array  # [3, 4] camera to world
    intrinsics: Array  # [4]
    depths: tuple[float, float] | None


def fits(folder: Path) -> str:
    """cams/ with …_cam.txt beside a folder of pictures."""
    if scans := mvsnet_scans.fits(folder):
        return scans
    images = next((name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    return f"cams/ with …{SUFFIX}, and {images}/" if images and _camera_files(folder) else ""


def _camera_files(folder: Path) -> list[Path]:
    place = folder / "cams"
    if not place.is_dir():
        return []
    return sorted((file for file in place.iterdir() if file.name.endswith(SUFFIX)), key=lambda file: natural_key(file.name))


def read(folder: Path, allow_outside: bool) -> Source:
    if mvsnet_scans.fits(folder):
        scan = mvsnet_scans.open_scan(folder, allow_outside)
        return _source(folder, scan.cameras, scan.pictures, scan.depth_maps, scan.notes)
    cameras = {
        file.name.removesuffix(SUFFIX): inside(folder, f"cams/{file.name}", allow_outside) for file in _camera_files(folder)
    }
    pictures = _by_stem(folder, IMAGE_FOLDERS, allow_outside)
    return _source(folder, cameras, pictures, _by_stem(folder, DEPTH_FOLDERS, allow_outside, (".pfm",)), [])


def _source(
    folder: Path, cameras: dict[str, Path], pictures: dict[str, Path], depth_maps: dict[str, Path], notes: list[str]
) -> Source:
    """From the files of each camera, by its name."""
    used = [stem for stem in cameras if stem in pictures]
    if not used:
        raise SceneError(
            folder, f"no picture in {' or '.join(IMAGE_FOLDERS)} has the name of a camera in cams (00000000{SUFFIX})"
        )
    views = [read_camera(cameras[stem]) for stem in used]
    sizes = np.array([image_size(pictures[stem]) for stem in used], np.int64)
    fitted = fit_to_pictures(np.stack([view.intrinsics for view in views]), sizes, folder / "cams")
    near_far = _near_far(views)
    alpha = has_alpha([pictures[stem] for stem in used])
    depths = [depth_maps.get(stem) for stem in used]
    lists = (
        ([cameras[stem].name for stem in cameras if stem not in pictures], "cameras are skipped: they have no picture"),
        (
            [picture.name for stem, picture in pictures.items() if stem not in cameras],
            "pictures are skipped: they have no camera",
        ),
    )
    return Source(
        kind="mvsnet",
        folder=folder,
        names=[_name(pictures[stem], folder) for stem in used],
        cameras=make_cameras(np.stack([view.pose for view in views]), fitted.intrinsics, sizes),
        image_files=[pictures[stem] for stem in used],
        depth=DepthFiles(depths, 1.0, "z") if any(depths) else None,
        near_far=near_far,
        unbounded=not alpha,
        notes=[
            *notes,
            *fitted.notes,
            f"depths {near_far[0]:.5g} to {near_far[1]:.5g} by the camera files" if near_far else "camera files state no depths",
            "an object on nothing (pictures have alpha)" if alpha else "a capture with a surrounding (pictures have no alpha)",
        ],
        warnings=[*fitted.warnings, *counted(*lists)],
    )


def _name(picture: Path, folder: Path) -> str:
    return picture.relative_to(folder).as_posix() if picture.is_relative_to(folder) else picture.name


def _by_stem(folder: Path, names: tuple[str, ...], allow_outside: bool, extensions: tuple[str, ...] = ()) -> dict[str, Path]:
    """The files of the first of some folders that exists, by their names without extension."""
    place = next((folder / name for name in names if (folder / name).is_dir()), None)
    if place is None:
        return {}
    if extensions:
        listed = sorted(file for file in place.iterdir() if file.suffix.lower() in extensions)
    else:
        listed = [file for file in list_images(place) if not file.stem.endswith("_masked")]
    found: dict[str, Path] = {}
    for file in listed:
        if file.stem in found:
            raise SceneError(place, f"has two files for one camera: {found[file.stem].name} and {file.name}")
        found[file.stem] = inside(folder, file.relative_to(folder).as_posix(), allow_outside)
    return found


def read_camera(file: Path) -> View:
    """One camera file. Its words and line breaks are free, its numbers are in a fixed order."""
    text = read_text(file)
    words = text[:LONGEST].split()
    if len(text) > LONGEST or "extrinsic" not in words or "intrinsic" not in words:
        raise SceneError(file, 'expected "extrinsic" with 4 x 4 numbers, "intrinsic" with 3 x 3 numbers, and depths')
    numbers = [
        number(word, file, f"number {i + 1}") for i, word in enumerate(w for w in words if w not in ("extrinsic", "intrinsic"))
    ]
    if not N_NUMBERS <= len(numbers) <= N_NUMBERS + 4:
        raise SceneError(file, f"expected {N_NUMBERS} numbers and up to 4 for the depths, got {len(numbers)}")
    world_to_camera = pose(np.reshape(numbers[:16], (4, 4)), file, "extrinsic")
    intrinsics = pinhole(np.reshape(numbers[16:25], (3, 3)), file, "intrinsic")
    return View(invert_poses(world_to_camera[None])[0], intrinsics, _depths(numbers[N_NUMBERS:], file))


def _depths(values: list[float], file: Path) -> tuple[float, float] | None:
    """depth_min and depth_max; None where the file does not say, as some converters write zeros."""
    if len(values) < 2 or not any(values):
        return None
    low, interval = values[:2]
    high = values[3] if len(values) == 4 else low + interval * ((values[2] if len(values) == 3 else N_DEPTHS) - 1)
    if not 0 < low < high:
        raise SceneError(file, f"expected depths from above 0 upwards, got {low:g} to {high:g}", "depths")
    return low, high


def _near_far(views: list[View]) -> tuple[float, float] | None:
    """What holds for all views."""
    given = [view.depths for view in views if view.depths]
    return (min(low for low, _ in given), max(high for _, high in given)) if given else None
