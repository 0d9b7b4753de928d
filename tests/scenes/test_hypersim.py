"""Hypersim's scenes."""

import builtins

import numpy as np
import pytest
import sample_hypersim
from sample_hypersim import K, write
from sample_rgbd import INSIDE, off_the_walls

from taichi_nerf.scenes import SceneError, hypersim, load_scene
from taichi_nerf.scenes.check import check_scene
from taichi_nerf.scenes.hdf5 import read_hdf5

from opengl_views import project

h5py = pytest.importorskip("h5py", reason="no h5py: pip install taichi-nerf[hypersim]")


def test_poses_lens_and_depths_along_rays_are_those_of_the_room(tmp_path):
    poses = sample_hypersim.make(tmp_path / "a")
    source = hypersim.read(tmp_path / "a", False)
    for view, matrix in enumerate(poses):
        assert np.abs(source.cameras.project(view, INSIDE)[0] - project(matrix, *K, INSIDE)).max() < 1e-9
    assert source.depth.kind == "ray"
    assert off_the_walls(source.points.positions).max() < 1e-4
    assert check_scene(source)[0].value < 3
    assert source.names[1] == "cam_00/frame.0001"
    assert source.warnings == []


def test_a_scene_opens_with_depths_that_are_infinite_at_no_surface(tmp_path):
    sample_hypersim.make(tmp_path / "a")
    scene = load_scene(tmp_path / "a")
    assert scene.kind == "hypersim"
    assert scene.depths.images[0].dtype == np.float32
    assert scene.images[0].dtype == np.uint8
    assert not scene.linear


def test_without_previews_the_linear_pictures_are_read(tmp_path):
    sample_hypersim.make(tmp_path / "a", previews=False)
    scene = load_scene(tmp_path / "a")
    assert scene.linear
    assert scene.images[0].shape == (30, 40, 3)
    assert scene.images[0].max() > 1.5


def test_cameras_and_withheld_frames_are_counted(tmp_path):
    sample_hypersim.make(tmp_path / "a")
    sample_hypersim.make(tmp_path / "a", camera="cam_01", n=3)
    (tmp_path / "a/images/scene_cam_01_final_preview/frame.0001.tonemap.jpg").unlink()
    (tmp_path / "a/images/scene_cam_00_geometry_hdf5/frame.0002.depth_meters.hdf5").unlink()
    source = hypersim.read(tmp_path / "a", False)
    assert hypersim.fits(tmp_path / "a") == "_detail with key frames of cam_00, cam_01"
    assert len(source.names) == 6
    assert source.warnings == [
        "1 key frames are skipped: they have no picture (the first is cam_01/frame.0001)",
        "1 frames have no depth map",
    ]


def test_cameras_are_in_the_order_of_their_numbers(tmp_path):
    """It decides which views are held out."""
    for camera in ("cam_10", "cam_2"):
        sample_hypersim.make(tmp_path / "a", camera=camera, n=1)
    assert hypersim.read(tmp_path / "a", False).names == ["cam_2/frame.0000", "cam_10/frame.0000"]


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    sample_hypersim.make(tmp_path / "a")
    real = builtins.__import__

    def absent(name, *arguments, **options):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(SceneError, match=r"pip install taichi-nerf\[hypersim\]"):
        hypersim.read(tmp_path / "a", False)


def external_link(opened):
    opened["dataset"] = h5py.ExternalLink("/etc/passwd", "dataset")


def external_storage(opened):
    opened.create_dataset("dataset", (4, 3), "f8", external=[("/etc/passwd", 0, 96)])


def virtual(opened):
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "dataset", (4, 3))
    opened.create_virtual_dataset("dataset", layout)


def bomb(opened):
    opened.create_dataset("dataset", (2**20, 2**20), "f8", chunks=(1024, 1024), compression="gzip")


def group(opened):
    opened.create_group("dataset")


def text(opened):
    opened["dataset"] = "text"


@pytest.mark.parametrize("make", [external_link, external_storage, virtual, bomb, group, text, lambda opened: None])
def test_an_array_that_is_not_in_the_file_or_not_of_numbers_is_refused(tmp_path, make):
    with h5py.File(tmp_path / "a.hdf5", "w") as opened:
        make(opened)
    with pytest.raises(SceneError, match=r"a\.hdf5"):
        read_hdf5(tmp_path / "a.hdf5")


POSITIONS, ORIENTATIONS = "_detail/cam_00/camera_keyframe_positions.hdf5", "_detail/cam_00/camera_keyframe_orientations.hdf5"
WRONG = {
    "positions nan": (POSITIONS, np.full((4, 3), np.nan), "not finite"),
    "positions of others": (POSITIONS, np.zeros((5, 3)), "expected 5 x 3 x 3 numbers"),
    "positions flat": (POSITIONS, np.zeros(4), "expected 4 x 3 numbers"),
    "orientations sheared": (ORIENTATIONS, np.ones((4, 3, 3)), "not orthonormal"),
    "indices repeated": ("_detail/cam_00/camera_keyframe_frame_indices.hdf5", np.zeros(4), "4 different frame numbers"),
    "indices nan": ("_detail/cam_00/camera_keyframe_frame_indices.hdf5", np.full(4, np.nan), "4 different frame numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_array_is_one_line_that_names_it(tmp_path, name):
    file, values, message = WRONG[name]
    sample_hypersim.make(tmp_path / "a")
    write(tmp_path / "a" / file, values)
    with pytest.raises(SceneError, match=message) as caught:
        hypersim.read(tmp_path / "a", False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "meters_per_asset_unit", "meters_per_asset_unit,nan", "meters_per_asset_unit,-1", '"\n' * 9]
)
def test_a_unit_that_is_missing_or_none_is_one_line(tmp_path, content):
    sample_hypersim.make(tmp_path / "a")
    (tmp_path / "a/_detail/metadata_scene.csv").write_text(content)
    with pytest.raises(SceneError, match="meters_per_asset_unit"):
        hypersim.read(tmp_path / "a", False)
