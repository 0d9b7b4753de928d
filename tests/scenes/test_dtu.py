"""DTU's, IDR's and NeuS's scenes."""

import numpy as np
import pytest
import sample_dtu
from sample_dtu import CENTER, RADIUS, K

from taichi_nerf.scenes import SceneError, dtu, load_scene
from taichi_nerf.scenes.camera_matrices import decompose, fit_to_pictures, match_by_number
from taichi_nerf.scenes.images import read_image

from opengl_views import POINTS
from real_data import data_folder

VARIANTS = {
    "as it is": {},
    "negative projections": {"sign": -1.0},
    "projections of another scale": {"sign": 0.01},
    "pictures a quarter the size, no camera_mat": {"factor": 4.0},
    "pictures a quarter the size, camera_mat": {"factor": 4.0, "camera_mat": 4.0},
    "pictures twice the size, camera_mat": {"factor": 0.5, "camera_mat": 0.5},
    "pictures a quarter the size, and so is world_mat, but not camera_mat": {"camera_mat": 4.0},
    "pictures half as large again": {"factor": 1 / 1.5},
    "cameras.npz without masks": {"name": "cameras.npz", "masks": False},
}


def truth(matrix, points):
    """Pixels of points in units of the sphere, by a camera with y up, in the pictures' own pixels."""
    local = (points - matrix[:3, 3]) @ matrix[:3, :3]
    return (local[:, :2] / -local[:, 2:] * [1, -1]) * [K[0, 0], K[1, 1]] + K[:2, 2]


@pytest.mark.parametrize("name", VARIANTS)
def test_points_project_whatever_scale_and_sign_the_projections_have(tmp_path, name):
    poses = sample_dtu.make(tmp_path / "a", **VARIANTS[name])
    source = dtu.read(tmp_path / "a", False)
    for view, matrix in enumerate(poses):
        assert np.abs(source.cameras.project(view, POINTS * RADIUS + CENTER)[0] - truth(matrix, POINTS)).max() < 1e-7
    assert np.allclose(source.box, [CENTER - RADIUS, CENTER + RADIUS])
    assert bool(source.mask_files) == VARIANTS[name].get("masks", True)
    assert source.unbounded == (source.mask_files is None)
    scaled = [note for note in source.notes if "scaled by" in note]
    assert len(scaled) == ("factor" in VARIANTS[name])
    assert not source.warnings


def test_scene_units_are_those_of_the_sphere(tmp_path):
    poses = sample_dtu.make(tmp_path / "a")
    scene = load_scene(tmp_path / "a")
    assert scene.kind == "dtu"
    assert np.allclose(scene.cameras.centers, [matrix[:3, 3] for matrix in poses], atol=1e-9)
    assert not scene.bounds.unbounded
    assert len(scene.masks) == 5


def test_spheres_that_differ_are_brought_into_one(tmp_path):
    other = np.diag([50.0, 50, 50, 1])
    other[:3, 3] = [7, 8, 9]
    changed = np.eye(4)
    poses = sample_dtu.worlds(5)[0]
    view = poses[3].copy()
    view[:3, 3] = view[:3, 3] * 50 + other[:3, 3]
    changed[:3] = K @ np.linalg.inv(view @ np.diag([1, -1, -1, 1]))[:3]
    sample_dtu.make(tmp_path / "a", world_mat_3=changed, scale_mat_3=other)
    source = dtu.read(tmp_path / "a", False)
    assert np.abs(source.cameras.project(3, POINTS * RADIUS + CENTER)[0] - truth(poses[3], POINTS)).max() < 1e-7
    assert "differs between pictures" in " ".join(source.notes)


def test_pictures_belong_to_cameras_by_number_where_some_are_missing(tmp_path):
    poses = sample_dtu.make(tmp_path / "a")
    (tmp_path / "a/image/000001.png").unlink()
    source = dtu.read(tmp_path / "a", False)
    assert source.names == [f"image/{i:06d}.png" for i in (0, 2, 3, 4)]
    assert [file.name for file in source.mask_files] == ["000.png", "002.png", "003.png", "004.png"]
    assert np.allclose((source.cameras.centers - CENTER) / RADIUS, [poses[i][:3, 3] for i in (0, 2, 3, 4)])
    assert source.warnings == ["1 cameras are skipped: they have no picture (the first is world_mat_1)"]


def test_pictures_that_count_from_one_are_taken_in_order(tmp_path):
    sample_dtu.make(tmp_path / "a")
    for i in reversed(range(5)):
        (tmp_path / f"a/image/{i:06d}.png").rename(tmp_path / f"a/image/rect_{i + 1:03d}_3_r5000.png")
    source = dtu.read(tmp_path / "a", False)
    assert source.names == [f"image/rect_{i + 1:03d}_3_r5000.png" for i in range(5)]


def test_the_form_is_told_by_content(tmp_path):
    sample_dtu.make(tmp_path / "a")
    assert dtu.fits(tmp_path / "a") == "cameras_sphere.npz with world_mat, and image/"
    (tmp_path / "a/cameras_sphere.npz").write_bytes(b"PK\x03\x04 broken")
    assert dtu.fits(tmp_path / "a") == ""
    np.savez(tmp_path / "a/cameras_sphere.npz", world_mat_0=np.eye(4))
    assert dtu.fits(tmp_path / "a") == ""  # rigid: DVR's renderings
    assert dtu.fits(tmp_path / "nothing") == ""


@pytest.mark.parametrize("seed", range(8))
def test_decomposition_gives_back_what_a_projection_is_made_of(seed):
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    calibration = np.array(
        [[generator.uniform(10, 5000), generator.normal(), generator.uniform(0, 2000)], [0, 500, 300], [0, 0, 1]]
    )
    center = generator.normal(size=3) * 100
    scale = generator.choice([-1, 1]) * 10 ** generator.uniform(-3, 3)
    projection = scale * calibration @ rotation @ np.concatenate([np.eye(3), -center[:, None]], -1)
    found, pose = decompose(projection, "file", "field")
    assert np.allclose(found, calibration, rtol=1e-9, atol=1e-9)
    assert np.allclose(pose[:, :3], rotation.T, atol=1e-9)
    assert np.allclose(pose[:, 3], center, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("center", "factor"), [((823, 619), 4), ((410, 305), 2), ((205, 148), 1), ((50, 37), 0.25), ((66, 50), 1 / 3)]
)
def test_the_factor_between_intrinsics_and_pictures_is_that_of_the_principal_point(center, factor):
    intrinsics = np.array([[500.0, 500, *center]])
    fitted = fit_to_pictures(intrinsics, np.array([[400, 300]]), "file")
    assert np.allclose(fitted.intrinsics, intrinsics / factor)
    assert bool(fitted.notes) == (factor != 1)


def test_a_principal_point_far_from_the_middle_is_left_and_told():
    intrinsics = np.array([[500.0, 500, 320, 100]])
    fitted = fit_to_pictures(intrinsics, np.array([[400, 300]]), "file")
    assert np.array_equal(fitted.intrinsics, intrinsics)
    assert "far from the middle" in fitted.warnings[0]
    with pytest.raises(SceneError, match="lies outside"):
        fit_to_pictures(np.array([[500.0, 500, 1000, 100]]), np.array([[400, 300]]), "file")


def test_matching_is_by_number_else_by_order(tmp_path):
    def files(*names):
        return [tmp_path / name for name in names]

    assert match_by_number(files("a3.png", "a5.png"), [5, 3]) == {3: tmp_path / "a3.png", 5: tmp_path / "a5.png"}
    assert match_by_number(files("x.png", "y.png"), [0, 1]) == {0: tmp_path / "x.png", 1: tmp_path / "y.png"}
    assert match_by_number(files("0001.png", "0007.png"), [0, 1, 2]) == {1: tmp_path / "0001.png"}
    assert match_by_number(files("scan.png"), [0, 1]) == {}


SHEARED = np.diag([RADIUS, RADIUS * 2, RADIUS, 1.0])
SKEWED = np.eye(4)
SKEWED[:3] = np.array([[40.0, 5, 12], [0, 38, 8], [0, 0, 1]]) @ np.eye(4)[:3]
WRONG = {
    "world_mat nan": ({"world_mat_1": np.full((4, 4), np.nan)}, "world_mat_1: has numbers that are not finite"),
    "world_mat singular": ({"world_mat_1": np.zeros((4, 4))}, "world_mat_1: is no projection"),
    "world_mat small": ({"world_mat_1": np.eye(2)}, "world_mat_1: expected 4 x 4 numbers"),
    "world_mat text": ({"world_mat_1": np.full((4, 4), "a")}, "world_mat_1: expected 4 x 4 numbers"),
    "world_mat complex": ({"world_mat_1": np.eye(4) * 1j}, "world_mat_1: expected 4 x 4 numbers|is no projection"),
    "world_mat skewed": ({"world_mat_1": SKEWED}, "has a skew"),
    "world_mat huge": ({"world_mat_1": np.eye(4) * 1e300}, "absurdly large"),
    "scale_mat sheared": ({"scale_mat_0": SHEARED}, "scale_mat_0: expected one scale"),
    "scale_mat negative": ({"scale_mat_0": -np.eye(4)}, "scale_mat_0: expected a number from"),
    "scale_mat missing": ({"scale_mat_2": None}, "scale_mat_2: expected one for each picture"),
    "scale_mat nan": ({"scale_mat_0": np.full((4, 4), np.nan)}, "scale_mat_0: has numbers"),
    "no pictures' cameras": ({f"world_mat_{i}": None for i in range(5)} | {"world_mat_70": SKEWED}, "no picture in image"),
    "camera_mat of another shape": ({"camera_mat_0": np.array([[0.1, 0, -1], [0, 0.1, -1], [0, 0, 1]])}, "states 20 x 20"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_a_wrong_array_is_one_line_that_names_it(tmp_path, name):
    changes, message = WRONG[name]
    sample_dtu.make(tmp_path / "a", **changes)
    with pytest.raises(SceneError, match=message) as caught:
        dtu.read(tmp_path / "a", False)
    assert "\n" not in str(caught.value)


def test_real_projections_and_masks_agree():
    """Every camera maps points where its world_mat maps them, and the masks' visual hull fills the masks."""
    source = dtu.read(data_folder("dtu_scan65_400x300"), False)
    assert len(source.names) == 49
    assert not source.warnings
    assert "intrinsics are for 1600 x 1200 by camera_mat: scaled by 0.25" in source.notes
    arrays = np.load(source.folder / "cameras.npz")
    center, radius = source.box.mean(0), float(np.ptp(source.box[:, 0])) / 2
    points = center + POINTS * radius
    for view in range(49):
        projected = points @ arrays[f"world_mat_{view}"][:3, :3].T.astype(float) + arrays[f"world_mat_{view}"][:3, 3]
        wanted = projected[:, :2] / projected[:, 2:] / 4
        assert np.abs(source.cameras.project(view, points)[0] - wanted).max() < 1e-3  # measured 8e-5: the file is in 32 bits
    masks = [read_image(file)[..., 0] > 127 for file in source.mask_files]
    grid = center + radius * np.stack(np.meshgrid(*[np.linspace(-0.7, 0.7, 64)] * 3), -1).reshape(-1, 3)
    for view, mask in enumerate(masks):
        grid = grid[_covers(source.cameras, view, grid, mask)]
    assert len(grid) > 10_000  # measured 22,000
    for view in range(0, 49, 8):
        covered = np.zeros_like(masks[view])
        columns, rows = source.cameras.project(view, grid)[0].astype(int).T
        for shift in np.ndindex(11, 11):
            covered[np.clip(rows + shift[0] - 5, 0, 299), np.clip(columns + shift[1] - 5, 0, 399)] = True
        assert (covered & masks[view]).sum() > 0.9 * masks[view].sum()  # measured 0.96


def _covers(cameras, view, points, mask):
    pixels, depth = cameras.project(view, points)
    seen = (depth > 0) & (pixels >= 0).all(-1) & (pixels < mask.shape[::-1]).all(-1)
    columns, rows = np.where(seen[:, None], pixels, 0).astype(int).T
    return seen & mask[rows, columns]
