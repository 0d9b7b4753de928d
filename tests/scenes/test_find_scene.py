"""Which folder is the scene: the one that is named, or the only one in it; never one of several."""

import shutil

import pytest
import sample_blender
import sample_colmap
import sample_transforms

from taichi_nerf.scenes import SceneError, find_reader, load_scene, read_source


def test_the_only_scene_in_a_folder_is_taken_and_named(tmp_path):
    sample_colmap.make(tmp_path / "unpacked/garden")
    for folder in (tmp_path, tmp_path / "unpacked"):
        source = read_source(folder)
        assert source.folder == tmp_path / "unpacked/garden"
        assert any("the only one in its folders" in note and "garden" in note for note in source.notes)
    assert not any("only one" in note for note in read_source(tmp_path / "unpacked/garden").notes)
    assert len(load_scene(tmp_path).images) == len(source.names)


@pytest.mark.parametrize("other", [sample_transforms, sample_blender, sample_colmap])
def test_of_several_scenes_none_is_chosen(tmp_path, other):
    sample_colmap.make(tmp_path / "garden")
    other.make(tmp_path / "house")
    with pytest.raises(SceneError, match="2 are in its folders; name one of them: garden, house") as caught:
        read_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_beside_its_pictures_is_one_scene(tmp_path):
    """However deep the model is; but a model with pictures of its own further down is a scene of its own."""
    sample_colmap.make(tmp_path / "a")
    assert find_reader(tmp_path / "a")[0] == "colmap"
    (tmp_path / "a/colmap").mkdir()
    shutil.move(tmp_path / "a/sparse", tmp_path / "a/colmap/sparse")
    assert read_source(tmp_path / "a").folder == tmp_path / "a"
    shutil.move(tmp_path / "a/images", tmp_path / "a/colmap/images")
    assert read_source(tmp_path / "a").folder == tmp_path / "a/colmap"


def test_a_folder_without_any_scene_says_what_it_found(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(SceneError, match="found: empty, notes"):
        find_reader(tmp_path)


def test_pictures_without_poses_are_told_what_finds_them(tmp_path):
    sample_transforms.make(tmp_path / "a")
    (tmp_path / "a/transforms.json").unlink()
    with pytest.raises(SceneError, match="holds pictures in images, but nothing"):
        find_reader(tmp_path / "a")
    with pytest.raises(SceneError, match="images: holds pictures, but nothing"):
        find_reader(tmp_path / "a/images")
    with pytest.raises(SceneError, match=r"000\.png: is no file of a known form: name a transforms\.json"):
        find_reader(tmp_path / "a/images/000.png")
