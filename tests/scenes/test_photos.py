"""Photos and videos to scenes: sharp frames are chosen, real photos register, nothing is left behind by a failure."""

import os
import shutil
import sys
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest

from taichi_nerf.scenes import photo_steps
from taichi_nerf.scenes.check import check_scene
from taichi_nerf.scenes.colmap import read
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import shrink
from taichi_nerf.scenes.load import read_source
from taichi_nerf.scenes.photos import photos_to_scene
from taichi_nerf.scenes.unfinished import hidden_place
from taichi_nerf.scenes.video_frames import drop_blurred, extract_frames, is_video, sharpness

from real_data import data_folder


def texture(seed, size=96):
    coarse = np.random.default_rng(seed).integers(0, 255, (size // 4, size // 4, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))


def blurred(image, by=8):
    small = shrink(image, image.shape[1] // by, image.shape[0] // by)
    return shrink(small, image.shape[1], image.shape[0])


def nothing(_fraction, _text):
    pass


def test_blur_lowers_sharpness():
    image = texture(0)
    assert sharpness(blurred(image)) < 0.1 * sharpness(image)
    assert sharpness(np.full((50, 60, 3), 90, np.uint8)) == 0
    assert sharpness(image[:2]) == 0


def test_sharpness_is_the_variance_of_the_laplacian():
    image = np.zeros((5, 5, 3), np.uint8)
    image[2, 2] = 10
    laplacian = np.array([[0, 10, 0], [10, -40, 10], [0, 10, 0.0]])
    assert sharpness(image) == pytest.approx(laplacian.var())


def test_frames_much_less_sharp_than_their_neighbours_are_dropped(tmp_path):
    files = [tmp_path / str(i) for i in range(20)]
    sharp = np.linspace(100, 30, 20)  # a slow change is of what is in view
    sharp[[5, 12]] *= 0.1
    kept = drop_blurred(list(zip(sharp, files, strict=True)))
    assert kept == [file for i, file in enumerate(files) if i not in (5, 12)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Sixty frames; ten in a row and each odd one blurred."""
    file = tmp_path_factory.mktemp("video") / "walk.mp4"
    frames = [texture(i // 10) for i in range(60)]
    frames = [blurred(frame) if i % 2 or 20 <= i < 30 else frame for i, frame in enumerate(frames)]
    imageio.imwrite(file, np.stack(frames), fps=30, plugin="FFMPEG")
    return file


def test_the_sharpest_frame_of_each_stretch_is_taken(video, tmp_path):
    assert is_video(video)
    found = extract_frames(video, tmp_path, 12, nothing)
    numbers = [int(file.stem.split("_")[1]) for file in found.files]
    assert found.n_blurred == 2  # frames 20 to 29
    assert len(numbers) == 10
    assert all(number % 2 == 0 and not 20 <= number < 30 for number in numbers)
    assert sorted(tmp_path.iterdir()) == found.files


def test_a_file_that_is_no_video_is_one_line(tmp_path):
    file = tmp_path / "broken.mp4"
    file.write_bytes(b"no video at all" * 100)
    with pytest.raises(SceneError) as caught:
        extract_frames(file, tmp_path / "out", 5, nothing)
    assert "\n" not in str(caught.value)


def test_without_pycolmap_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(SceneError, match=r'pip install "pycolmap>=4"'):
        photos_to_scene(tmp_path, tmp_path / "out")


def photos_and_steps(tmp_path):
    """An empty folder for photos, and the steps from there to a scene, without COLMAP."""
    source, work = tmp_path / "photos", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    return source, photo_steps.Steps(SimpleNamespace(Device=SimpleNamespace(cpu=0)), work, nothing, 1)


def test_names_are_such_that_a_list_of_colmap_holds_them(tmp_path):
    source, steps = photos_and_steps(tmp_path)
    for seed, name in enumerate(("#1 a.png", "_1_a.png", "ü.png")):
        imageio.imwrite(source / name, texture(seed))
    steps.gather(source, 1)
    assert sorted(steps.names) == sorted(file.name for file in steps.images.iterdir()) == ["_1_a.png", "again__1_a.png", "ü.png"]


@pytest.mark.parametrize("there", [True, False])
def test_a_finished_model_becomes_the_scene_in_a_new_folder_and_in_an_empty_one(tmp_path, there):
    out = tmp_path / "scene"
    if there:
        out.mkdir()
    work = hidden_place(out)
    work.mkdir()
    steps = photo_steps.Steps(SimpleNamespace(Device=SimpleNamespace(cpu=0)), work, nothing, 1)
    steps.images.mkdir()
    (steps.images / "a.png").touch()
    steps.write(SimpleNamespace(write_binary=lambda folder: (folder / "images.bin").touch()), out, undistort=False)
    shutil.rmtree(work, ignore_errors=True)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) == [
        os.path.join("scene", "images", "a.png"),
        os.path.join("scene", "sparse", "0", "images.bin"),
    ]


@pytest.mark.parametrize("n_read", [0, 2])
def test_photos_that_are_not_taken_are_told(tmp_path, n_read):
    """Phones write HEIC, cameras raw files; some people sort photos into folders."""
    source, steps = photos_and_steps(tmp_path)
    for folder in ("left", "empty"):
        (source / folder).mkdir()
    for seed, file in enumerate([*(source / f"{i}.png" for i in range(n_read)), source / "left/a.png"]):
        imageio.imwrite(file, texture(seed))
    for name in ("IMG_2.HEIC", "IMG_1.heic", "IMG_3.dng", ".hidden.heic", "notes.txt"):
        (source / name).write_bytes(b"what is in it does not matter")
    told = [
        "3 photos are of forms that are not read, save them as JPEG (the first is IMG_1.heic)",
        "pictures in folders inside it are not taken: left (1)",
    ]
    if n_read:
        steps.gather(source, 1)
        assert steps.passed_over == told
    else:
        with pytest.raises(SceneError) as caught:
            steps.gather(source, 1)
        assert all(sentence in str(caught.value) for sentence in told)


def test_a_photo_that_is_there_twice_is_taken_once(tmp_path):
    """Every eighth picture is held out: a copy of it among the others would be trained on."""
    source, steps = photos_and_steps(tmp_path)
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        imageio.imwrite(source / name, texture(seed))
    for name in ("b (1).png", "z.PNG"):
        shutil.copyfile(source / "b.png", source / name)
    steps.gather(source, 1)
    contents = [file.read_bytes() for file in steps.images.iterdir()]
    assert sorted(contents) == sorted((source / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert len(steps.names) == 3
    assert [sentence.split(" (")[0] for sentence in steps.passed_over] == ["2 files repeat another and are left out"]


@pytest.fixture
def needs_pycolmap():
    return pytest.importorskip("pycolmap", reason="the extra `photos` is not installed")


@pytest.mark.usefixtures("needs_pycolmap")
@pytest.mark.parametrize(
    ("arrange", "options", "said"),
    [
        ("nothing", {}, "no such file"),
        ("empty", {}, "0 readable pictures"),
        ("one", {}, "1 readable"),
        ("broken", {}, "1 readable"),
        ("occupied", {}, "is there already"),
        ("one", {"matching": "all"}, "exhaustive"),
        ("one", {"camera_model": "ROUND"}, "camera model"),
        ("plain", {}, "none of 3 pictures"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(tmp_path, arrange, options, said):
    source, out = tmp_path / "photos", tmp_path / "scene"
    if arrange != "nothing":
        source.mkdir()
    for i in range({"one": 1, "broken": 1, "plain": 3}.get(arrange, 0)):
        imageio.imwrite(source / f"{i}.png", np.full((64, 64, 3), 100 + i, np.uint8))
    if arrange == "broken":
        (source / "x.jpg").write_bytes(b"\xff\xd8 cut")
    if arrange == "occupied":
        out.mkdir()
        (out / "mine.txt").write_text("keep")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SceneError, match=said) as caught:
        photos_to_scene(source, out, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("needs_pycolmap")
def test_an_interruption_leaves_nothing(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for i in range(3):
        imageio.imwrite(source / f"{i}.png", texture(i))

    def interrupt(_fraction, _text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        photos_to_scene(source, tmp_path / "scene", report=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def aligned_distances(moving, fixed):
    """[n] between two sets of points after the best similarity (Umeyama)."""
    a, b = moving - moving.mean(0), fixed - fixed.mean(0)
    left, strength, right = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    rotation = left * signs @ right
    scale = (strength * signs).sum() / (a**2).sum()
    return np.linalg.norm(scale * a @ rotation.T - b, axis=-1)


@pytest.mark.usefixtures("needs_pycolmap")
@pytest.mark.parametrize("undistort", [False, True])
def test_real_photos_register_and_stand_where_the_shipped_model_says(tmp_path, undistort):
    """Measured at 1000 pixels: 23 of 23, the farthest 1.1 % off, 0.31 px. Half the size and fewer features here, for speed."""
    data = data_folder("colmap_bartoszek")
    told = []
    found = photos_to_scene(
        data / "images", tmp_path / "scene", max_image_size=600, undistort=undistort, report=lambda *state: told.append(state)
    )
    assert found.n_photos == 23
    assert found.n_registered >= 20
    assert len(found.failed) == 23 - found.n_registered
    assert found.reprojection_error < 1
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    source, shipped = read_source(tmp_path / "scene"), read(data, False)
    assert source.kind == "colmap"
    assert bool(source.cameras.distortion.any()) != undistort
    assert len(source.names) == found.n_registered
    if not undistort:
        assert check_scene(source)[0].value == pytest.approx(found.reprojection_error, rel=0.01)
    fixed = shipped.cameras.centers[[shipped.names.index(name) for name in source.names]]
    distances = aligned_distances(source.cameras.centers, fixed)
    assert distances.max() < 0.02 * np.linalg.norm(np.ptp(shipped.cameras.centers, axis=0))
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]
