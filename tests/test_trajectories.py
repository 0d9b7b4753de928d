"""Camera paths: where they go, where they look, at what speed; and the file that holds one."""

import json
from pathlib import Path

import numpy as np
import pytest

from taichi_nerf import camera_path, trajectories
from taichi_nerf.cameras import EQUIRECTANGULAR, OPENCV, make_cameras
from taichi_nerf.curves import multiply, quaternion, quaternions, rotation_vector, rotations, slerp

UP = np.array([0.0, 0, 1])
EXAMPLE = Path(__file__).resolve().parents[1] / "docs/example_path.json"


def ring(n=24, radius=(3.0, 3.0), height=1.0, center=(0.0, 0, 0), turn=0.0, **lens):
    """Cameras on a level ellipse that look at its center."""
    angles = 2 * np.pi * np.arange(n) / n + turn
    positions = np.stack([radius[0] * np.cos(angles), radius[1] * np.sin(angles), np.full(n, height)], -1) + center
    poses = trajectories.look_at(positions, np.asarray(center, float), UP)
    return make_cameras(poses, lens.get("intrinsics", (100, 100, 40, 30)), (80, 60), lens.get("models", 0))


def forward_facing(n=16, seed=0):
    offsets = np.random.default_rng(seed).uniform(-1, 1, (n, 3)) * [0.5, 0.3, 0.1]
    poses = trajectories.look_at(offsets, offsets + np.array([0.0, 8, 0]), UP)
    return make_cameras(poses, (100, 100, 40, 30), (80, 60))


def orthonormal(cameras):
    rotation = cameras.camera_to_worlds[:, :, :3]
    return np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max() < 1e-9 and (np.linalg.det(rotation) > 0).all()


def step_lengths(cameras, closed):
    centers = cameras.centers
    return np.linalg.norm(np.diff(centers, axis=0, append=centers[:1] if closed else centers[-1:]), axis=-1)[
        : None if closed else -1
    ]


ALL = {
    "orbit": lambda cameras, n: trajectories.orbit(cameras, n),
    "ellipse": lambda cameras, n: trajectories.ellipse(cameras, n),
    "spiral": lambda cameras, n: trajectories.spiral(cameras, n),
    "interpolate": lambda cameras, n: trajectories.interpolate(cameras, n),
    "closed": lambda cameras, n: trajectories.interpolate(cameras, n, closed=True),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n_views", [1, 2, 24])
@pytest.mark.parametrize("n_frames", [1, 2, 31])
def test_every_path_has_rigid_poses_and_as_many_frames_as_asked_for(name, n_views, n_frames):
    path = ALL[name](ring(n_views), n_frames)
    assert len(path) == n_frames
    assert orthonormal(path)
    assert np.isfinite(path.centers).all()
    assert (path.sizes == [80, 60]).all()
    assert np.allclose(path.intrinsics, [100, 100, 40, 30])


@pytest.mark.parametrize("name", ALL)
def test_no_frames_is_an_error(name):
    with pytest.raises(ValueError, match="at least one frame"):
        ALL[name](ring(), 0)


@pytest.mark.parametrize("name", ALL)
def test_paths_turn_and_grow_with_the_world(name):
    """Moving all cameras by a similarity moves the path by the same one."""
    cameras = forward_facing() if name == "spiral" else ring(23, (3.0, 2.0), turn=0.2)
    rotation = rotations(quaternion(np.array([[0.3, -0.8, 1.1]])))[0]
    there = ALL[name](cameras.moved(2.5, rotation, np.array([1.0, 2, 3])), 12)
    here = ALL[name](cameras, 12).moved(2.5, rotation, np.array([1.0, 2, 3]))
    assert np.abs(there.camera_to_worlds - here.camera_to_worlds).max() < 1e-6


@pytest.mark.parametrize("name", ["orbit", "ellipse"])
def test_a_circle_of_cameras_gives_that_circle_back(name):
    path = ALL[name](ring(36, center=(1.0, -2, 0.5)), 60)
    offsets = path.centers - [1.0, -2, 0.5]
    assert np.allclose(offsets[:, 2], 1.0)
    assert np.allclose(np.linalg.norm(offsets[:, :2], axis=-1), 3.0, rtol=0.02)
    assert np.allclose((offsets * path.forwards).sum(-1), -np.linalg.norm(offsets, axis=-1))
    assert np.allclose(step_lengths(path, closed=True), 2 * np.pi * 3 / 60, rtol=0.03)


def test_an_orbit_starts_at_the_first_view_goes_counter_clockwise_and_does_not_repeat_it():
    path = trajectories.orbit(ring(36), 4)
    assert np.allclose(path.centers, [[3, 0, 1], [0, 3, 1], [-3, 0, 1], [0, -3, 1]])


def test_an_orbit_takes_what_is_asked_for():
    path = trajectories.orbit(ring(), 5, center=(0, 0, 1), radius=2.0, elevation_degrees=30, arc_degrees=90)
    offsets = path.centers - [0.0, 0, 1]
    assert np.allclose(np.linalg.norm(offsets, axis=-1), 2)
    assert np.allclose(offsets[:, 2], 1.0)
    assert np.degrees(np.arctan2(offsets[-1, 1], offsets[-1, 0])) == pytest.approx(90)


def test_an_orbit_over_the_pole_is_still_rigid():
    assert orthonormal(trajectories.orbit(ring(), 8, elevation_degrees=90))


def test_an_ellipse_is_fitted_and_driven_at_even_speed():
    path = trajectories.ellipse(ring(200, (4.0, 1.5), turn=0.01), 80)
    x, y = path.centers[:, 0] / 4, path.centers[:, 1] / 1.5
    assert np.abs(np.hypot(x, y) - 1).max() < 0.02
    lengths = step_lengths(path, closed=True)
    assert lengths.max() / lengths.min() < 1.02  # chords across the sharp ends are shorter than their arcs


def test_an_ellipse_rises_between_the_cameras_heights():
    low, high = ring(20, height=0.5), ring(20, height=1.5, turn=0.1)
    both = make_cameras(np.concatenate([low.camera_to_worlds, high.camera_to_worlds]), (100, 100, 40, 30), (80, 60))
    middle = np.array([0.0, 0, 0])
    heights = trajectories.ellipse(both, 200, center=middle, height_variation=1.0).centers[:, 2]
    assert (heights.min(), heights.max()) == (pytest.approx(0.5, abs=0.01), pytest.approx(1.5, abs=0.01))
    assert np.ptp(trajectories.ellipse(both, 50, center=middle).centers[:, 2]) < 1e-9


def test_a_spiral_looks_at_one_place_ahead_from_within_the_cameras():
    cameras = forward_facing()
    path = trajectories.spiral(cameras, 60, focus_distance=8.0)
    target = cameras.centers.mean(0) + np.array([0.0, 8, 0])
    across = np.linalg.norm(np.cross(target - path.centers, path.forwards), axis=-1)
    assert across.max() < 1e-9
    assert (
        np.abs(path.centers - cameras.centers.mean(0)) <= np.abs(cameras.centers - cameras.centers.mean(0)).max(0) + 1e-9
    ).all()


def test_a_spiral_goes_the_way_of_llffs():
    """In its axes (right, up, backward): cos θ, -sin θ, -sin θ / 2, two turns, each as far as nine cameras of ten stand off."""
    offsets = np.random.default_rng(1).uniform(-1, 1, (10, 3)) * [0.5, 0.3, 0.1]
    middle = np.array([3.0, 4, 5])
    offsets = np.concatenate([offsets, -offsets]) + middle
    cameras = make_cameras(trajectories.look_at(offsets, offsets + np.array([0.0, 8, 0]), UP), (100, 100, 40, 30), (80, 60))
    right, up, back = np.array([1.0, 0, 0]), np.array([0.0, 0, 1]), np.array([0.0, -1, 0])
    radii = [np.percentile(np.abs((offsets - middle) @ axis), 90) for axis in (right, up, back)]
    theta = np.linspace(0, 4 * np.pi, 13)[:-1, None]
    wanted = radii[0] * np.cos(theta) * right - radii[1] * np.sin(theta) * up - radii[2] * np.sin(theta / 2) * back
    path = trajectories.spiral(cameras, 12, focus_distance=8.0)
    np.testing.assert_allclose(path.centers, wanted + middle, atol=1e-9)


def test_a_spiral_focuses_where_llff_does():
    path = trajectories.spiral(forward_facing(), 20, near_far=(2.0, 20.0))
    expected = 1 / (0.25 / 1.8 + 0.75 / 100)
    near = trajectories.spiral(forward_facing(), 20, focus_distance=expected)
    assert np.allclose(path.camera_to_worlds, near.camera_to_worlds)


@pytest.mark.parametrize("closed", [False, True])
def test_interpolation_passes_through_every_view(closed):
    cameras = ring(7, (3.0, 1.0))
    n = 7 if closed else 6
    path = trajectories.interpolate(cameras, 10 * n + (not closed), closed=closed, constant_speed=False)
    assert np.abs(path.camera_to_worlds[::10] - cameras.camera_to_worlds).max() < 1e-9


def test_interpolation_at_constant_speed_is_even_and_ends_at_the_last_view():
    generator = np.random.default_rng(3)
    positions = np.cumsum(generator.uniform(0.1, 3, (9, 3)), 0)
    cameras = make_cameras(trajectories.look_at(positions, np.array([0.0, 50, 0]), UP), (100, 100, 40, 30), (80, 60))
    path = trajectories.interpolate(cameras, 400)
    lengths = step_lengths(path, closed=False)
    assert lengths.std() / lengths.mean() < 0.02
    assert np.abs(path.camera_to_worlds[[0, -1]] - cameras.camera_to_worlds[[0, -1]]).max() < 1e-9
    uneven = step_lengths(trajectories.interpolate(cameras, 400, constant_speed=False), closed=False)
    assert uneven.std() / uneven.mean() > 0.2


def test_interpolation_is_smooth():
    """Neither positions nor orientations jump in speed at a view: halving the step halves the largest change of speed."""
    cameras = ring(6, (3.0, 1.0), height=0.7)

    def change(n):
        path = trajectories.interpolate(cameras, n)
        return np.abs(np.diff(path.camera_to_worlds, 2, axis=0)).max() * n

    assert change(2000) < 0.6 * change(1000)


def test_interpolation_of_a_circle_stays_near_it():
    path = trajectories.interpolate(ring(12), 200, closed=True)
    assert np.abs(np.linalg.norm(path.centers[:, :2], axis=-1) - 3).max() < 0.03
    outward = -path.centers / np.linalg.norm(path.centers, axis=-1, keepdims=True)
    assert (outward * path.forwards).sum(-1).min() > 0.999


def test_a_pure_turn_takes_time():
    poses = trajectories.look_at(np.zeros((3, 3)), np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0]]), UP)
    path = trajectories.interpolate(make_cameras(poses, (100, 100, 40, 30), (80, 60)), 19)
    turns = np.degrees(np.arccos((path.forwards[1:] * path.forwards[:-1]).sum(-1)))
    assert np.allclose(turns, 10, atol=0.2)


def test_repeated_views_do_no_harm():
    cameras = ring(5)[[0, 0, 1, 1, 2]]
    path = trajectories.interpolate(cameras, 50)
    assert orthonormal(path)
    assert step_lengths(path, closed=False).max() < 3 * step_lengths(path, closed=False).mean()


def test_focal_lengths_are_interpolated_too():
    lenses = [(100, 100, 40, 30), (200, 200, 40, 30)]
    path = trajectories.interpolate(ring(2, intrinsics=lenses), 3)
    assert np.allclose(path.intrinsics[:, 1], [100, 100 * np.sqrt(2), 200], rtol=1e-3)


def test_up_is_found_from_level_cameras_wherever_they_look():
    tilted = ring(5)[[0, 1]]  # looking down, from one side only: their mean own up is far off
    assert np.allclose(trajectories.upward(tilted), UP, atol=0.02)
    assert np.allclose(trajectories.upward(forward_facing()), UP, atol=0.1)


def test_frames_are_plain_pinholes_whatever_the_lens():
    bent = ring(models=OPENCV, intrinsics=(120, 100, 35, 31))
    assert np.allclose(trajectories.orbit(bent, 3).intrinsics, [100, 100, 40, 30])
    assert (trajectories.orbit(bent, 3).models == 0).all()
    sphere = trajectories.orbit(ring(models=EQUIRECTANGULAR), 3)
    assert np.degrees(2 * np.arctan(30 / sphere.intrinsics[0, 1])) == pytest.approx(60)


def test_evenly_takes_frames_from_the_first_to_the_last():
    path = trajectories.orbit(ring(), 9)
    for n, wanted in ((3, [0, 4, 8]), (1, [0]), (17, np.arange(17) / 2)):
        found = trajectories.evenly(path, n)
        np.testing.assert_array_equal(found.camera_to_worlds, path.camera_to_worlds[np.round(wanted).astype(int)])


def test_framed_keeps_the_field_of_view_and_follows_the_shape():
    path = trajectories.orbit(ring(), 3)
    half = trajectories.framed(path, width=40)
    assert half.sizes[0].tolist() == [40, 30]
    assert np.allclose(half.intrinsics, [50, 50, 20, 15])
    wide = trajectories.framed(path, 200, 60, fov_y_degrees=90)
    assert np.allclose(wide.intrinsics, [30, 30, 100, 30])
    assert trajectories.framed(wide, width=1).sizes[0].tolist() == [1, 1]


def test_framed_keeps_the_lens_of_the_views():
    bent = ring(3, models=OPENCV, intrinsics=(120, 100, 35, 31))
    bent.distortion[:] = [0.1, -0.02, 0, 0, 0, 0, 0.003, -0.004]
    pixels = np.random.default_rng(0).uniform(0, 60, (20, 2))
    for sized, moved in ((trajectories.framed(bent, width=40), 0), (trajectories.framed(bent, 60, 30), 10)):
        assert np.allclose(sized.rays(1, pixels / 2 + [moved, 0])[1], bent.rays(1, pixels)[1])


# --- quaternions --------------------------------------------------------------------------------------------------------


def test_quaternions_and_matrices_are_inverse_of_each_other_at_half_turns_too():
    vectors = np.concatenate([np.random.default_rng(0).normal(size=(50, 3)), np.pi * np.eye(3), np.zeros((1, 3))])
    q = quaternion(vectors)
    back = quaternions(rotations(q))
    assert np.abs(np.abs((back * q).sum(-1)) - 1).max() < 1e-12


def test_multiplying_quaternions_multiplies_matrices_and_slerp_turns_evenly():
    a, b = quaternion(np.random.default_rng(1).normal(size=(2, 20, 3)))
    assert np.allclose(rotations(multiply(a, b)), rotations(a) @ rotations(b))
    whole = np.linalg.norm(rotation_vector(multiply(a * [1, -1, -1, -1], b)), axis=-1)
    part = np.linalg.norm(rotation_vector(multiply(a * [1, -1, -1, -1], slerp(a, b, np.full((20, 1), 0.3)))), axis=-1)
    assert np.allclose(part, 0.3 * whole)


# --- the file -----------------------------------------------------------------------------------------------------------


def test_a_path_survives_its_file(tmp_path):
    path = trajectories.interpolate(ring(5, intrinsics=[(100 + i, 100 + i, 40, 30) for i in range(5)]), 20)
    camera_path.write_camera_path(tmp_path / "path.json", path, 24)
    back, fps = camera_path.read_camera_path(tmp_path / "path.json")
    assert fps == 24
    assert np.abs(back.camera_to_worlds - path.camera_to_worlds).max() < 1e-12
    assert np.abs(back.intrinsics - path.intrinsics).max() < 1e-9
    assert (back.sizes == path.sizes).all()
    assert [file.name for file in tmp_path.iterdir()] == ["path.json"]


def test_the_example_file_of_the_documentation_is_one():
    path, fps = camera_path.read_camera_path(EXAMPLE)
    assert fps > 0
    assert len(path) > 1
    assert orthonormal(path)


def test_a_lens_that_the_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pinhole"):
        camera_path.write_camera_path(tmp_path / "path.json", ring(models=OPENCV))
    with pytest.raises(ValueError, match="middle"):
        camera_path.write_camera_path(tmp_path / "path.json", ring(intrinsics=(100, 100, 41, 30)))
    assert not list(tmp_path.iterdir())


POSE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
GOOD = {"fps": 30, "width": 8, "height": 6, "fov_y_degrees": 40, "frames": [{"camera_to_world": POSE}]}
BROKEN = {
    "no size": ({**GOOD, "width": None}, "width: expected a whole number from 1"),
    "half a pixel": ({**GOOD, "height": 6.5}, "height: expected a whole number"),
    "text for a number": ({**GOOD, "fps": "30"}, "fps: expected a number"),
    "infinite": ({**GOOD, "fps": float("inf")}, "fps: expected a number"),
    "no field of view": (
        {name: value for name, value in GOOD.items() if name != "fov_y_degrees"},
        "fov_y_degrees: expected",
    ),
    "a whole turn of view": (
        {**GOOD, "frames": [{"camera_to_world": POSE, "fov_y_degrees": 360}]},
        r"frames\[0\].fov_y_degrees",
    ),
    "typo": ({**GOOD, "fov_y_degree": 40}, "did you mean fov_y_degrees"),
    "typo in a frame": ({**GOOD, "frames": [{"camera_to_worlds": POSE}]}, "did you mean camera_to_world"),
    "of nerfstudio": ({"camera_type": "perspective", "camera_path": []}, "camera_path: is a path of nerfstudio"),
    "of instant-ngp": ({"loop": False, "path": []}, "path: is a path of instant-ngp"),
    "no frames": ({**GOOD, "frames": []}, "frames: expected a list of frames"),
    "frames of numbers": ({**GOOD, "frames": [3]}, r"frames\[0\]: expected an object"),
    "no pose": ({**GOOD, "frames": [{}]}, "expected 4 x 4 numbers, got nothing"),
    "ragged pose": ({**GOOD, "frames": [{"camera_to_world": [[1, 2], [3]]}]}, "expected 4 x 4 numbers"),
    "not finite": ({**GOOD, "frames": [{"camera_to_world": [[float("nan")] * 4] * 4}]}, "not finite"),
    "transposed": (
        {**GOOD, "frames": [{"camera_to_world": np.transpose(np.add(POSE, [[0, 0, 0, 2]])).tolist()}]},
        "transposed",
    ),
    "sheared": ({**GOOD, "frames": [{"camera_to_world": [[1, 1, 0, 0], *POSE[1:]]}]}, "no rotation"),
    "mirrored": ({**GOOD, "frames": [{"camera_to_world": [[-1, 0, 0, 0], *POSE[1:]]}]}, "no rotation"),
    "a list": ([GOOD], "expected an object with frames"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_path_is_one_line_that_names_file_and_field(tmp_path, name):
    data, message = BROKEN[name]
    (tmp_path / "path.json").write_text(json.dumps(data))
    with pytest.raises(camera_path.CameraPathError, match=message) as error:
        camera_path.read_camera_path(tmp_path / "path.json")
    assert str(error.value).startswith(f"{tmp_path / 'path.json'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"fps": ' + b"9" * 10_000 + b"}"])
def test_what_is_no_json_is_one_line_too(tmp_path, content):
    (tmp_path / "path.json").write_bytes(content)
    with pytest.raises(camera_path.CameraPathError, match=r"path.json: is no"):
        camera_path.read_camera_path(tmp_path / "path.json")


def test_a_missing_path_and_a_folder_are_named(tmp_path):
    for file, message in ((tmp_path / "x.json", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(camera_path.CameraPathError, match=message):
            camera_path.read_camera_path(file)


def test_paths_of_files_may_be_strings(tmp_path):
    camera_path.write_camera_path(str(tmp_path / "path.json"), ring(3))
    assert len(camera_path.read_camera_path(str(tmp_path / "path.json"))[0]) == 3


def test_a_path_that_cannot_be_written_names_the_file_asked_for(tmp_path):
    file = tmp_path / "absent" / "path.json"
    with pytest.raises(camera_path.CameraPathError) as caught:
        camera_path.write_camera_path(file, ring(3))
    assert str(caught.value) == f"{file}: cannot be written: No such file or directory"
