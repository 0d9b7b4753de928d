"""COLMAP's binary model, little-endian, each file opening with a uint64 count.

cameras.bin    int32 id, int32 model, uint64 width, height, float64 parameters (as many as the model has)
images.bin     uint32 id, float64 quaternion w x y z, float64 translation, uint32 camera, name ending in a zero byte,
               uint64 n, n x (float64 x, float64 y, uint64 point or 2^64 - 1 for none)
points3D.bin   uint64 id, float64 x y z, uint8 r g b, float64 error, uint64 n, n x (uint32 image, uint32 which keypoint)
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from taichi_nerf.scenes.colmap_model import (
    CAMERA_MODELS,
    NUMBERS,
    Array,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
)
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.files import read_bytes

LARGEST = 8 * 2**30  # bytes
LONGEST_NAME = 4096
CAMERA = struct.Struct("<IiQQ")
IMAGE = struct.Struct("<I7dI")
POINT = np.dtype([("id", "<u8"), ("at", "<f8", 3), ("color", "u1", 3), ("error", "<f8")])
COUNT = struct.Struct("<Q")
KEYPOINT = np.dtype([("at", "<f8", 2), ("point", "<u8")])
TRACK = np.dtype([("image", "<u4"), ("keypoint", "<u4")])


class _Bytes:
    """A file read from front to back; whoever asks for more than there is gets a SceneError."""

    def __init__(self, file: Path):
        self.file, self.data, self.at = file, read_bytes(file, LARGEST), 0

    def fail(self, what: str) -> SceneError:
        return SceneError(self.file, f"{what} at byte {self.at} of {len(self.data)}; is it complete, and of COLMAP?")

    def take(self, form: struct.Struct) -> tuple[Any, ...]:
        if self.at + form.size > len(self.data):
            raise self.fail("ends in the middle")
        self.at += form.size
        return form.unpack_from(self.data, self.at - form.size)

    def count(self, smallest: int) -> int:
        """A count of records of at least that many bytes each: it is believed only if they can be there."""
        (n,) = self.take(COUNT)
        if n * smallest > len(self.data) - self.at:
            raise self.fail(f"promises {n} records that are not there,")
        return int(n)

    def array(self, dtype: np.dtype[Any], n: int) -> Array:
        self.at += n * dtype.itemsize
        return np.frombuffer(self.data, dtype, n, self.at - n * dtype.itemsize)

    def raw(self, n: int) -> bytes:
        """n bytes as they are: of a million small records, arrays are made of all at once."""
        if self.at + n > len(self.data):
            raise self.fail("ends in the middle")
        self.at += n
        return self.data[self.at - n : self.at]

    def text(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + LONGEST_NAME)
        if end < 0:
            raise self.fail("has a file name without an end")
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("has a file name that is no UTF-8") from None

    def done(self) -> None:
        if self.at != len(self.data):
            raise self.fail("holds more than it promises,")


def read_cameras(file: Path) -> list[ColmapCamera]:
    source = _Bytes(file)
    found = []
    for _ in range(source.count(CAMERA.size + 16)):
        camera, number, width, height = source.take(CAMERA)
        if number not in CAMERA_MODELS:
            raise source.fail(f"has a camera of the unknown model {number}")
        name, n = CAMERA_MODELS[number]
        found.append(ColmapCamera(camera, name, width, height, source.take(struct.Struct(f"<{n}d"))))
    source.done()
    return found


def read_images(file: Path) -> list[ColmapImage]:
    source = _Bytes(file)
    found = []
    for _ in range(source.count(IMAGE.size + 9)):
        image, *pose, camera = source.take(IMAGE)
        name = source.text()
        seen = source.array(KEYPOINT, source.count(KEYPOINT.itemsize))
        ids = seen["point"].astype(np.int64)
        found.append(ColmapImage(image, np.array(pose[:4]), np.array(pose[4:]), camera, name, seen["at"].copy(), ids))
    source.done()
    return found


def read_points(file: Path) -> ColmapPoints:
    source = _Bytes(file)
    heads, lengths, tracks = [], [], []
    for _ in range(source.count(POINT.itemsize + COUNT.size)):
        heads.append(source.raw(POINT.itemsize))
        lengths.append(source.count(TRACK.itemsize))
        tracks.append(source.raw(lengths[-1] * TRACK.itemsize))
    source.done()
    points, seen = np.frombuffer(b"".join(heads), POINT), np.frombuffer(b"".join(tracks), TRACK)
    if len(points) and points["id"].max() >= 2**63:
        raise source.fail(f"has a point numbered {points['id'].max()}")
    return ColmapPoints(
        points["id"].astype(np.int64),
        points["at"].copy(),
        points["color"].copy(),
        points["error"].copy(),
        np.array(lengths, np.int64),
        seen["image"].astype(np.int64),
        seen["keypoint"].astype(np.int64),
    )


def write(folder: Path, model: ColmapModel) -> None:
    """cameras.bin, images.bin and points3D.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras, images = [_count(model.cameras)], [_count(model.images)]
    for camera in model.cameras:
        cameras.append(CAMERA.pack(camera.id, NUMBERS[camera.model], camera.width, camera.height))
        cameras.append(np.array(camera.parameters, "<f8").tobytes())
    for image in model.images:
        seen = np.zeros(len(image.keypoints), KEYPOINT)
        seen["at"], seen["point"] = image.keypoints, image.point_ids.astype(np.uint64)
        images.append(IMAGE.pack(image.id, *image.quaternion, *image.translation, image.camera))
        images.append(image.name.encode() + b"\0" + _count(seen) + seen.tobytes())
    points, start = [_count(model.points.ids)], 0
    for i, length in enumerate(model.points.track_lengths):
        track = np.zeros(length, TRACK)
        track["image"] = model.points.track_images[start : start + length]
        track["keypoint"] = model.points.track_keypoints[start : start + length]
        start += length
        position, color = model.points.positions[i], model.points.colors[i]
        head = np.array((model.points.ids[i], position, color, model.points.errors[i]), POINT)
        points.append(head.tobytes() + _count(track) + track.tobytes())
    for name, parts in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.bin").write_bytes(b"".join(parts))


def _count(records: Any) -> bytes:
    return COUNT.pack(len(records))
