"""COLMAP models: text and binary are one scene, every lens is kept, points project to where they were seen."""

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sample_colmap as sample
from PIL import Image

from taichi_nerf.scenes import colmap, colmap_binary, colmap_text
from taichi_nerf.scenes.check import check_points, check_scene, reprojection_distances
from taichi_nerf.scenes.colmap_model import ColmapModel, ColmapPoints
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.load import load_scene
from taichi_nerf.scenes.write import write_transforms

from real_data import data_folder


@pytest.fixture
def scene(tmp_path):
    sample.make(tmp_path)
    return tmp_path


def assert_same(a, b):
    assert a.names == b.names
    for name in a.cameras.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a.cameras, name), getattr(b.cameras, name))
    for one, other in zip(a.points, b.points, strict=True):
        np.testing.assert_array_equal(one, other)


def test_cameras_project_points_where_the_formula_says(scene):
    source = colmap.read(scene, False)
    assert source.names == [f"view_{i}.png" for i in range(1, 6)]
    for i, pose in enumerate(sample.poses()):
        pixels, depth = source.cameras.project(i, sample.points())
        np.testing.assert_allclose(pixels, sample.project(pose, sample.points()), atol=1e-10)
        np.testing.assert_allclose(depth, (sample.points() @ pose[:, :3].T + pose[:, 3])[:, 2], atol=1e-12)


def test_observations_are_kept_and_keypoints_of_no_point_are_not(scene):
    points = colmap.read(scene, False).points
    assert len(points.seen) == sample.N_VIEWS * sample.N_POINTS
    np.testing.assert_array_equal(points.seen_at.reshape(sample.N_VIEWS, sample.N_POINTS, 2), sample.observations())
    np.testing.assert_array_equal(points.positions, sample.points())
    assert points.colors[7].tolist() == [7, 20, 30]


def test_reprojection_error_is_the_one_in_the_file(scene):
    source = colmap.read(scene, False)
    ours, stated = check_scene(source)
    assert ours.value == pytest.approx(sample.errors().mean(), rel=1e-9)
    assert stated.value == pytest.approx(ours.value, rel=1e-9)


def test_binary_and_text_give_the_same_scene(scene, tmp_path_factory):
    other = tmp_path_factory.mktemp("binary")
    shutil.copytree(scene / "images", other / "images")
    model = colmap.read_model(scene / "sparse/0", ".txt")
    colmap_binary.write(other / "sparse", replace(model, images=model.images[::-1]))  # nor does the order matter
    assert_same(colmap.read(scene, False), colmap.read(other, False))


@pytest.mark.parametrize("form", [colmap_binary, colmap_text])
def test_what_is_written_reads_back_the_same(scene, tmp_path, form):
    model = colmap.read_model(scene / "sparse/0", ".txt")
    form.write(tmp_path / "again", model)
    again = colmap.read_model(tmp_path / "again", ".bin" if form is colmap_binary else ".txt")
    assert again.cameras == model.cameras
    for a, b in zip(again.images, model.images, strict=True):
        assert (a.id, a.name, a.camera) == (b.id, b.name, b.camera)
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        np.testing.assert_array_equal(a.point_ids, b.point_ids)
        np.testing.assert_array_equal([*a.quaternion, *a.translation], [*b.quaternion, *b.translation])
    for name in model.points.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again.points, name), getattr(model.points, name))


@pytest.mark.parametrize("where", ["sparse/0", "sparse", "colmap/sparse/0", "colmap_sparse/0", "colmap_text", "any", "."])
@pytest.mark.parametrize("pictures", ["images", "input", "fotos", "."])
def test_model_and_pictures_are_found_wherever_they_are(tmp_path, where, pictures):
    sample.write_text(tmp_path / where)
    sample.write_images(tmp_path / pictures)
    assert colmap.fits(tmp_path)
    assert len(colmap.read(tmp_path, False).names) == sample.N_VIEWS


def test_full_size_pictures_are_preferred_and_smaller_ones_scale_the_lens(scene):
    sample.write_images(scene / "images_2", (40, 30))
    assert colmap.read(scene, False).cameras.sizes[0].tolist() == [80, 60]
    shutil.rmtree(scene / "images")
    source = colmap.read(scene, False)
    np.testing.assert_allclose(source.cameras.intrinsics[0], np.array(sample.LENS[:4]) / 2)
    np.testing.assert_allclose(source.points.seen_at[:20], sample.observations()[0] / 2)
    assert check_scene(source)[0].value == pytest.approx(sample.errors().mean() / 2, rel=1e-9)
    assert any("scaled" in note for note in source.notes)


def test_pictures_saved_in_another_format_are_found_by_their_stem(scene):
    names = [f"view_{i + 1}.jpg" for i in range(5)]
    shutil.rmtree(scene / "images")
    sample.write_images(scene / "images", names=names)
    assert [file.name for file in colmap.read(scene, False).image_files] == names


def test_missing_pictures_are_one_counted_warning(scene):
    (scene / "images/view_2.png").unlink()
    (scene / "images/view_4.png").unlink()
    source = colmap.read(scene, False)
    assert len(source.names) == 3
    assert source.warnings == ["2 of 5 pictures are missing and left out, the first is view_2.png"]
    assert source.points.seen_by.max() == 2
    assert np.nanmax(reprojection_distances(source.cameras, source.points)) < 1


def turn_by_exif(folder, names, orientation):
    for name in names:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.open(folder / name).save(folder / name, exif=exif)


@pytest.fixture
def photos(tmp_path):
    """A scene of JPEGs, which can have EXIF entries."""
    names = [f"view_{i + 1}.jpg" for i in range(5)]
    sample.write_text(tmp_path, names)
    sample.write_images(tmp_path, names=names)
    return tmp_path, names


@pytest.mark.parametrize(("orientation", "turns"), [(6, 1), (3, 2), (8, 3)])
def test_pictures_that_exif_turns_turn_their_cameras(photos, orientation, turns):
    folder, names = photos
    plain = colmap.read(folder, False)
    turn_by_exif(folder, names, orientation)
    source = colmap.read(folder, False)
    assert source.cameras.sizes[0].tolist() == ([60, 80] if turns % 2 else [80, 60])
    for i in range(5):
        u, v = plain.cameras.project(i, sample.points())[0].T
        for size in [(80, 60), (60, 80), (80, 60)][:turns]:
            u, v = size[1] - v, u
        np.testing.assert_allclose(source.cameras.project(i, sample.points())[0], np.stack([u, v], -1), atol=1e-9)
    assert check_scene(source)[0].value == pytest.approx(sample.errors().mean(), rel=1e-9)


def test_cameras_of_pictures_as_they_are_shown_are_not_turned(photos):
    """Some exporters hand COLMAP upright pictures, and the camera's size tells."""
    folder, names = photos
    plain = colmap.read(folder, False)
    for name in names:
        Image.open(folder / name).transpose(Image.Transpose.ROTATE_90).save(folder / name)
    turn_by_exif(folder, names, 6)
    assert_same(colmap.read(folder, False), plain)


def test_mirrored_pictures_are_refused(photos):
    turn_by_exif(*photos, 2)
    with pytest.raises(SceneError, match="mirrored"):
        colmap.read(photos[0], False)


def test_the_model_with_most_images_is_taken(scene):
    model = colmap.read_model(scene / "sparse/0", ".txt")
    colmap_binary.write(scene / "a", replace(model, images=model.images[:2]))
    source = colmap.read(scene, False)
    assert len(source.names) == 5
    assert "1 more in the folder" in source.notes[0]


def test_observations_of_points_that_are_not_there_are_counted(scene):
    file = scene / "sparse/0/points3D.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    source = colmap.read(scene, False)
    assert len(source.points.positions) == 19
    assert source.warnings == ["5 observations are of points that points3D.txt does not have; they are left out"]


def test_points_follow_the_pictures_when_a_scene_is_downscaled(scene):
    loaded = load_scene(scene, downscale=2)
    assert check_points(loaded.cameras, loaded.points)[0].value == pytest.approx(sample.errors().mean() / 2, rel=1e-9)


def change(folder: Path, name: str, old: str, new: str) -> None:
    file = folder / "sparse/0" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


BROKEN = {
    "unknown model": ("cameras.txt", "OPENCV", "PINHOLY", "unknown model"),
    "too few parameters": ("cameras.txt", " 0.08", "", "8 parameters"),
    "negative focal length": ("cameras.txt", " 70.0", " -70.0", "focal length"),
    "nan parameter": ("cameras.txt", " 0.08", " nan", "finite"),
    "zero width": ("cameras.txt", " 80 ", " 0 ", "size"),
    "huge width": ("cameras.txt", " 80 ", " 99999999999999 ", "size"),
    "other shape": ("cameras.txt", " 80 ", " 60 ", "another shape"),
    "unknown camera": ("images.txt", " 1 view_1.png", " 2 view_1.png", "camera 2"),
    "outside the folder": ("images.txt", "view_1.png", "../../view_1.png", "leads out"),
    "absolute path": ("images.txt", "view_1.png", "/etc/hostname", "leads out"),
    "image number twice": ("images.txt", "\n12 ", "\n11 ", "one number"),
    "cut keypoints": ("images.txt", "1.5 2.5 -1", "1.5 2.5", "keypoints"),
    "nan keypoint": ("images.txt", "1.5 2.5 -1", "nan 2.5 -1", "not finite"),
    "no number": ("images.txt", "1.5 2.5 -1", "x 2.5 -1", "keypoints"),
    "point number twice": ("points3D.txt", "\n101 ", "\n100 ", "one number"),
    "color out of range": ("points3D.txt", " 20 30 ", " 20 300 ", "a point"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text_is_one_line(scene, case):
    name, old, new, said = BROKEN[case]
    change(scene, name, old, new)
    with pytest.raises(SceneError, match=said) as caught:
        colmap.read(scene, False)
    assert "\n" not in str(caught.value)


def test_quaternions_that_are_none_are_refused(scene):
    model = colmap.read_model(scene / "sparse/0", ".txt")
    for quaternion in ([0, 0, 0, 0], [2, 0, 0, 0], [np.nan, 0, 0, 1]):
        broken = replace(model.images[0], quaternion=np.array(quaternion, float))
        colmap_binary.write(scene / "sparse/0", replace(model, images=[broken, *model.images[1:]]))
        with pytest.raises(SceneError, match="quaternion"):
            colmap.read(scene, False)


def test_every_truncation_of_the_binary_files_is_refused(scene):
    model = colmap.read_model(scene / "sparse/0", ".txt")
    shutil.rmtree(scene / "sparse")
    colmap_binary.write(scene / "sparse", model)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        file = scene / "sparse" / name
        whole = file.read_bytes()
        for length in {*range(0, min(120, len(whole)), 7), *range(0, len(whole), 211), len(whole) - 1}:
            file.write_bytes(whole[:length])
            with pytest.raises(SceneError):
                colmap.read(scene, False)
        file.write_bytes(struct.pack("<Q", 2**60) + whole[8:])  # a count that would need all memory
        with pytest.raises(SceneError, match="promises"):
            colmap.read(scene, False)
        file.write_bytes(whole)


def test_no_images_and_no_pictures_are_told_apart(scene):
    shutil.rmtree(scene / "images")
    with pytest.raises(SceneError, match="none of its 5 pictures"):
        colmap.read(scene, False)
    (scene / "sparse/0/images.txt").write_text("# none\n")
    with pytest.raises(SceneError, match="nothing was registered"):
        colmap.read(scene, False)


def test_other_folders_do_not_fit(tmp_path):
    assert colmap.fits(tmp_path) == ""
    assert colmap.fits(tmp_path / "absent") == ""
    (tmp_path / "cameras.txt").write_text("1 2 3\n")
    (tmp_path / "images.txt").write_text("")
    assert colmap.fits(tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "n_views", "n_points", "pixels"), [("colmap_bartoszek", 23, 1443, 0.2795), ("colmap_tiny_text", 3, 256, 0.6342)]
)
def test_real_models_project_where_colmap_itself_says(name, n_views, n_points, pixels):
    """The figures are COLMAP's own, recomputed by it: the ERROR column of these two files is older than their last change."""
    source = colmap.read(data_folder(name), False)
    assert (len(source.names), len(source.points.positions)) == (n_views, n_points)
    assert check_scene(source)[0].value == pytest.approx(pixels, rel=1e-3)
    assert not source.warnings


def test_real_text_and_binary_are_the_same_scene(tmp_path):
    data = data_folder("colmap_tiny_text")
    for inner in ("colmap_sparse/0", "colmap_text"):
        (tmp_path / inner).parent.mkdir(exist_ok=True)
        shutil.copytree(data / inner, tmp_path / inner.split("/")[0] / "scene" / "sparse")
        shutil.copytree(data / "fotos", tmp_path / inner.split("/")[0] / "scene" / "images")
    assert_same(*(colmap.read(tmp_path / inner / "scene", False) for inner in ("colmap_sparse", "colmap_text")))


def test_links_in_a_circle_end(scene):
    (scene / "up").symlink_to(scene)
    (scene / "one").symlink_to(scene / "two")
    (scene / "two").symlink_to(scene / "one")
    assert len(colmap.read(scene, False).names) == sample.N_VIEWS


def test_links_out_of_the_scene_need_leave(scene, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "images"
    shutil.move(scene / "images", elsewhere)
    (scene / "images").symlink_to(elsewhere)
    with pytest.raises(SceneError, match="--allow-outside"):
        colmap.read(scene, False)
    assert len(colmap.read(scene, True).names) == sample.N_VIEWS


def write_mask(file, size=sample.SIZE):
    """Black but for the first quarter of its columns in the upper half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[: size[1] // 2, : size[0] // 4] = 255
    Image.fromarray(mask).save(file)
    return mask


@pytest.mark.parametrize("ending", [".png.png", ".png"])
@pytest.mark.parametrize("pictures", ["images", "photos", "zoom/images"])
def test_masks_beside_the_pictures_are_theirs_and_no_pictures(tmp_path, pictures, ending):
    sample.write_text(tmp_path / "sparse")
    sample.write_images(tmp_path / pictures)
    masks = (tmp_path / pictures).parent / "masks"
    mask = write_mask(masks / f"view_2{ending}")
    for i in (1, 3, 4):
        write_mask(masks / f"view_{i}{ending}", (40, 30))
    scene = load_scene(tmp_path)
    assert all(file.parent == tmp_path / pictures for file in scene.images.files)
    np.testing.assert_array_equal(scene.masks[1][..., 0], mask)
    np.testing.assert_array_equal(scene.masks[0][..., 0] > 127, mask > 0)
    assert scene.masks[4].min() == 255
    told = [note for note in scene.notes if "mask" in note]
    assert told == [
        f"4 masks in {masks.relative_to(tmp_path)}: what is black there is not looked at",
        "1 of 5 views have no mask and count as a whole (the first is view_5.png)",
    ]


def test_masks_of_photos_may_have_another_ending(tmp_path):
    """Photos are JPEGs and masks are not: the names that the programs for cutting out give them."""
    sample.write_text(tmp_path / "sparse")
    sample.write_images(tmp_path / "images")
    for file in sorted((tmp_path / "images").iterdir()):
        file.rename(file.with_suffix(".jpg"))
        write_mask(tmp_path / "masks" / f"{file.stem}.png")
    images = tmp_path / "sparse/images.txt"
    images.write_text(images.read_text().replace(".png", ".jpg"))
    source = colmap.read(tmp_path, False)
    assert [file.suffix for file in source.image_files] == [".jpg"] * sample.N_VIEWS
    assert [file.name for file in source.mask_files] == [f"{file.stem}.png" for file in source.image_files]


@pytest.mark.parametrize(("orientation", "turns"), [(6, 1), (3, 2), (8, 3)])
def test_masks_turn_with_pictures_that_exif_turns(photos, tmp_path_factory, orientation, turns):
    folder, names = photos
    for name in names:
        mask = write_mask(folder / "masks" / f"{name}.png")
    turn_by_exif(folder, names, orientation)
    upright = np.rot90(mask, -turns)
    np.testing.assert_array_equal(load_scene(folder).masks[0][..., 0], upright)
    written = tmp_path_factory.mktemp("written") / "out"
    write_transforms(colmap.read(folder, False), written)
    np.testing.assert_array_equal(load_scene(written).masks[0][..., 0], upright)
    if turns % 2:  # made of the picture as it is shown
        mask = write_mask(folder / "masks" / f"{names[0]}.png", sample.SIZE[::-1])
        np.testing.assert_array_equal(load_scene(folder).masks[0][..., 0], mask)


def test_a_folder_of_other_masks_and_masks_of_another_shape_are_told(scene):
    write_mask(scene / "masks/other.png")
    source = colmap.read(scene, False)
    assert source.mask_files is None
    assert source.warnings == [
        "masks holds no mask of these pictures: expected names like masks/view_1.png.png or masks/view_1.png"
    ]
    write_mask(scene / "masks/view_1.png", (60, 80))
    with pytest.raises(SceneError, match=r"view_1.png: is a mask of 60 x 80 pixels for a picture of 80 x 60"):
        colmap.read(scene, False)


def test_points_become_arrays_all_at_once(tmp_path, monkeypatch):
    """A model has millions: an array for the track of each took longer than all the rest."""
    n, random = 50, np.random.default_rng(0)
    lengths = random.integers(0, 4, n)
    images, keypoints = random.integers(0, 99, (2, lengths.sum()))
    points = ColmapPoints(
        np.arange(n) + 7, random.normal(size=(n, 3)), random.integers(0, 255, (n, 3)).astype(np.uint8), random.random(n),
        lengths, images, keypoints,
    )  # fmt: skip
    colmap_binary.write(tmp_path, ColmapModel([], [], points))
    made, frombuffer = [], np.frombuffer
    monkeypatch.setattr(np, "frombuffer", lambda *arguments: made.append(1) or frombuffer(*arguments))
    found = colmap_binary.read_points(tmp_path / "points3D.bin")
    assert len(made) == 2
    for name in points.__dataclass_fields__:
        assert np.array_equal(getattr(found, name), getattr(points, name)), name
