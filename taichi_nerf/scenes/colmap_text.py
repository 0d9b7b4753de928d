"""COLMAP's text model: the fields of the binary one by spaces, a record a line.

    cameras.txt    id MODEL width height parameters
    images.txt     two lines: id qw qx qy qz tx ty tz camera name, then x y point for each keypoint, point -1 for none
    points3D.txt   id x y z r g b error, then image and keypoint for each place where it was seen

`#` opens a comment; an image without keypoints has an empty second line.
"""

from pathlib import Path

import numpy as np

from taichi_nerf.scenes.colmap_model import (
    N_PARAMETERS,
    Array,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
    make_points,
)
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import read_text


class _Fields:
    """The fields of one line."""

    def __init__(self, file: Path, number: int, line: str, least: int, expected: str):
        self.file, self.number, self.fields, self.expected = file, number, line.split(), expected
        if len(self.fields) < least:
            raise self.fail()

    def fail(self) -> SceneError:
        return SceneError(self.file, f"expected {self.expected}", f"line {self.number}")

    def integers(self, where: slice, low: int = 0, high: int = 2**63 - 1) -> list[int]:
        try:
            found = [int(field) for field in self.fields[where]]
        except ValueError:
            raise self.fail() from None
        if not all(low <= value <= high for value in found):
            raise self.fail()
        return found

    def floats(self, where: slice) -> Array:
        try:
            return np.array([float(field) for field in self.fields[where]], np.float64)
        except ValueError:
            raise self.fail() from None


def _lines(file: Path) -> list[str]:
    return read_text(file).splitlines()


def _is_record(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def read_cameras(file: Path) -> list[ColmapCamera]:
    found = []
    for number, line in enumerate(_lines(file), 1):
        if _is_record(line):
            fields = _Fields(file, number, line, 4, "a camera: its number, model, width, height and parameters")
            (camera,), (width, height) = fields.integers(slice(0, 1)), fields.integers(slice(2, 4))
            model, parameters = fields.fields[1], fields.floats(slice(4, None))
            if model not in N_PARAMETERS:
                raise SceneError(file, f"has a camera of the unknown model {model[:40]!r}", f"line {number}")
            if len(parameters) != N_PARAMETERS[model]:
                raise SceneError(
                    file, f"{model} has {N_PARAMETERS[model]} parameters, here are {len(parameters)}", f"line {number}"
                )
            found.append(ColmapCamera(camera, model, width, height, tuple(parameters.tolist())))
    return found


def read_images(file: Path) -> list[ColmapImage]:
    found = []
    numbered = enumerate(_lines(file), 1)
    for number, line in numbered:
        if _is_record(line):
            head = _Fields(file, number, line, 10, "an image: its number, quaternion, translation, camera and name")
            (image,), (camera,) = head.integers(slice(0, 1)), head.integers(slice(8, 9))
            name = line.strip().split(maxsplit=9)[9]  # names may hold spaces
            pose = head.floats(slice(1, 8))
            number, line = next(numbered, (number + 1, ""))  # the keypoints: an empty line for none
            seen = _Fields(file, number, line, 0, "keypoints: x, y and the point's number, three fields each")
            if len(seen.fields) % 3:
                raise seen.fail()
            at = np.stack([seen.floats(slice(0, None, 3)), seen.floats(slice(1, None, 3))], -1)
            ids = np.array(seen.integers(slice(2, None, 3), -1), np.int64)
            found.append(ColmapImage(image, pose[:4], pose[4:], camera, name, at, ids))
    return found


def read_points(file: Path) -> ColmapPoints:
    ids, rows, lengths, images, keypoints = [], [], [], [], []
    for number, line in enumerate(_lines(file), 1):
        if _is_record(line):
            fields = _Fields(file, number, line, 8, "a point: its number, x, y, z, r, g, b, error and track")
            track = fields.integers(slice(8, None), 0, 2**32 - 1)
            if len(track) % 2:
                raise fields.fail()
            ids += fields.integers(slice(0, 1))
            rows.append([*fields.floats(slice(1, 4)), *fields.integers(slice(4, 7), 0, 255), *fields.floats(slice(7, 8))])
            lengths.append(len(track) // 2)
            images += track[0::2]
            keypoints += track[1::2]
    return make_points(ids, rows, lengths, images, keypoints)


def write(folder: Path, model: ColmapModel) -> None:
    """cameras.txt, images.txt and points3D.txt, numbers with all their digits."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = [_join(c.id, c.model, c.width, c.height, *map(float, c.parameters)) for c in model.cameras]
    images = []
    for image in model.images:
        images.append(_join(image.id, *image.quaternion.tolist(), *image.translation.tolist(), image.camera, image.name))
        seen = zip(image.keypoints.tolist(), image.point_ids.tolist(), strict=True)
        images.append(" ".join(_join(x, y, point) for (x, y), point in seen))
    p, points, start = model.points, [], 0
    for i, length in enumerate(p.track_lengths.tolist()):
        track = np.stack([p.track_images[start : start + length], p.track_keypoints[start : start + length]], -1).ravel()
        start += length
        points.append(_join(p.ids[i], *p.positions[i].tolist(), *p.colors[i].tolist(), float(p.errors[i]), *track.tolist()))
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _join(*fields: object) -> str:
    return " ".join(map(str, fields))
