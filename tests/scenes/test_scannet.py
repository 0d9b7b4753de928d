"""ScanNet's exported sequences: metric depths that agree, lost frames, and intrinsics for pictures of another size."""

import numpy as np
import pytest
import sample_scannet

from taichi_nerf.scenes import SceneError, load_scene, read_source
from taichi_nerf.scenes.check import check_scene

from opengl_views import POINTS, project, write_picture


def test_points_project_and_depth_maps_agree(tmp_path):
    poses = sample_scannet.make(tmp_path / "a")
    source = read_source(tmp_path / "a")
    assert source.notes[0] == "read as rgbd: color, pose and intrinsic/intrinsic_color.txt"
    for view, matrix in enumerate(poses):
        wanted = project(matrix, *sample_scannet.INTRINSICS)
        assert np.nanmax(np.abs(source.cameras.project(view, POINTS)[0] - wanted)) < 1e-2  # poses have six digits
    assert (source.depth.kind, source.depth.unit) == ("z", 0.001)
    assert check_scene(load_scene(tmp_path / "a"))[0].value < 2


def test_frames_are_in_the_order_of_their_numbers_and_lost_ones_are_skipped(tmp_path):
    sample_scannet.make(tmp_path / "a", n=12)
    (tmp_path / "a/pose/3.txt").write_text("-inf -inf -inf -inf\n" * 4)
    (tmp_path / "a/pose/4.txt").unlink()
    (tmp_path / "a/depth/5.png").unlink()
    source = read_source(tmp_path / "a")
    assert source.names == [f"color/{i}.jpg" for i in range(12) if i not in (3, 4)]
    assert source.warnings == [
        "1 pictures are skipped: they have no pose",
        "1 frames are skipped: tracking was lost, their poses are not finite",
        "1 frames have no depth map",
    ]


def test_smaller_pictures_scale_the_intrinsics(tmp_path):
    sample_scannet.make(tmp_path / "a")
    for i in range(5):
        write_picture(tmp_path / f"a/color/{i}.jpg", 64, 48, 3, seed=i)
    source = read_source(tmp_path / "a")
    assert source.cameras.intrinsics[0] == pytest.approx(sample_scannet.NOMINAL, abs=1e-5)
    assert any("scaled by 0.5" in note for note in source.notes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("pose/0.txt", "1 2 3", "expected 4 x 4 numbers, got 3"),
        ("pose/0.txt", "2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "not orthonormal"),
        ("intrinsic/intrinsic_color.txt", "x " * 16, "finite number"),
        ("intrinsic/intrinsic_color.txt", "1 " * 5000, "a long text"),
    ],
)
def test_broken_files_are_one_line(tmp_path, name, content, said):
    sample_scannet.make(tmp_path / "a")
    (tmp_path / "a" / name).write_text(content)
    with pytest.raises(SceneError, match=said) as caught:
        read_source(tmp_path / "a")
    assert name in str(caught.value)


def test_pictures_without_any_pose_are_refused(tmp_path):
    sample_scannet.make(tmp_path / "a")
    for file in (tmp_path / "a/pose").iterdir():
        file.unlink()
    with pytest.raises(SceneError, match="none of the 5 pictures"):
        read_source(tmp_path / "a")
