"""What stands around the field: where a scene alone is looked at from, and small pictures of its views."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from taichi_nerf.cameras import make_cameras
from taichi_nerf.scenes import load_scene
from taichi_nerf.viewer.stage import first_eye, overview
from taichi_nerf.viewer.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def scene(small_scene):
    return load_scene(small_scene)


def looking(scene, origins, targets):
    """The scene with cameras at some places that look at others, OpenCV's axes."""
    poses = []
    for origin, target in zip(origins, targets, strict=True):
        forward = (target - origin) / np.linalg.norm(target - origin)
        right = np.cross(forward, [0.0, 0.0, 1.0] if abs(forward[2]) < 0.99 else [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        poses.append(np.stack([right, np.cross(forward, right), forward, origin], -1))
    cameras = make_cameras(np.stack(poses), [50.0, 50.0, 32.0, 24.0], (64, 48))
    return replace(scene, cameras=cameras, splits={"train": np.arange(len(poses))})


ANGLES = np.linspace(0, 2 * np.pi, 8, endpoint=False)
RING = np.stack([2 * np.cos(ANGLES), 2 * np.sin(ANGLES), 0.5 + 0 * ANGLES], -1)
ROW = np.stack([np.linspace(-1, 1, 5), 0 * np.arange(5), 0 * np.arange(5)], -1)


@pytest.mark.parametrize(
    ("origins", "targets"),
    [
        (RING, 0 * RING),
        (ROW, ROW + np.array([0, 1.0, 0])),  # side by side: their axes meet nowhere
        (ROW, ROW * 0.2 + np.array([0, 3.0, 0])),
        (ROW + np.array([0, 0, 2.0]), 0.5 * ROW),  # from above
        (np.zeros((1, 3)), np.array([[0, 0, -1.0]])),
    ],
    ids=["ring", "parallel", "forward", "down", "one"],
)
def test_an_overview_has_every_camera_in_the_picture(scene, origins, targets):
    """By projecting their places; and it looks on from behind the first of them."""
    changed = looking(scene, origins, targets)
    eye, middle, up = overview(changed)
    camera = eye.camera(100)
    pixels, depths = camera.project(0, changed.cameras.centers)
    assert (depths > 0).all()
    assert (pixels >= 0).all()
    assert (pixels <= camera.sizes[0]).all()
    np.testing.assert_allclose(camera.project(0, middle[None])[0][0], camera.sizes[0] / 2, atol=0.01)
    assert -eye.pose[:, 1] @ up > 0.5  # upright
    assert np.array(eye.position) @ up > first_eye(changed)[0].position @ up - 1e-6


def test_thumbnails_of_large_photos_are_the_photos(scene, tmp_path):
    """JPEGs are decoded at an eighth; how they are turned and what they show stays. A damaged file has none."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((1800, 1200), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    coarse.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:3000])
    images = type(scene.images)([tmp_path / "turned.jpg", tmp_path / "broken.jpg"])
    small = images.small(0, 96)
    assert small.shape[:2] == (225, 150)
    whole = images[0].astype(float)
    assert np.abs(small - whole.reshape(225, 8, 150, 8, 3).mean((1, 3))).mean() < 2
    thumbnails = Thumbnails(replace(scene, images=images))
    assert max(thumbnails[0].shape) <= 96
    assert thumbnails[1] is None
