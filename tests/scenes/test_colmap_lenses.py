"""COLMAP's eighteen camera models: each as one of ours, the fitted ones with an honest residual."""

import numpy as np
import pytest
import sample_colmap as sample

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, OPENCV, PINHOLE, make_cameras
from taichi_nerf.scenes import colmap
from taichi_nerf.scenes.colmap_lenses import lens_of
from taichi_nerf.scenes.colmap_model import N_PARAMETERS, ColmapCamera
from taichi_nerf.scenes.errors import SceneError

SIZE = (1000, 800)
EXACT = {
    "SIMPLE_PINHOLE": (700, 500, 400),
    "PINHOLE": (700, 690, 500, 400),
    "SIMPLE_RADIAL": (700, 500, 400, 0.1),
    "RADIAL": (700, 500, 400, 0.1, -0.05),
    "OPENCV": (700, 690, 510, 395, 0.1, -0.05, 0.002, -0.003),
    "FULL_OPENCV": (700, 690, 510, 395, 0.1, -0.05, 0.002, -0.003, 0.01, 0.02, 0.01, 0.003),
    "OPENCV_FISHEYE": (400, 390, 510, 395, 0.1, -0.05, 0.01, -0.003),
    "SIMPLE_FISHEYE": (400, 500, 400),
    "FISHEYE": (400, 390, 500, 400),
    "SIMPLE_RADIAL_FISHEYE": (400, 500, 400, 0.02),
    "RADIAL_FISHEYE": (400, 500, 400, 0.02, -0.01),
    "EQUIRECTANGULAR": (1000, 800),
}
FITTED = {
    "FOV": (500, 490, 510, 395, 0.9),
    "SIMPLE_DIVISION": (500, 500, 400, -0.1),
    "DIVISION": (500, 490, 500, 400, -0.1),
    "EUCM": (500, 490, 500, 400, 0.6, 1.1),
    "THIN_PRISM_FISHEYE": (400, 390, 510, 395, 0.1, -0.05, 0.0002, -0.0001, 0.01, -0.003, 0.0001, -0.0001),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        400,
        400,
        510,
        395,
        0.1,
        -0.05,
        0.01,
        -0.003,
        0.001,
        0.0001,
        2e-5,
        -1e-5,
        1e-5,
        1e-6,
        1e-5,
        1e-6,
    ),
}


def lens(model, parameters):
    return lens_of(ColmapCamera(1, model, *SIZE, tuple(map(float, parameters))))


def directions(n=4000):
    found = np.random.default_rng(0).normal(size=(n, 3)) * [1, 1, 0.6]
    found[:, 2] = np.abs(found[:, 2])
    return found


def project(found, points):
    return make_cameras(np.eye(4)[None], found.intrinsics, found.size, found.model, found.distortion).project(0, points)[0]


def test_every_model_of_colmap_is_known():
    assert set(EXACT) | set(FITTED) == set(N_PARAMETERS)


@pytest.mark.parametrize("model", [*EXACT, *FITTED])
def test_projects_as_colmap_does(model):
    """Measured with pycolmap 4.2.1: 1e-12 px for the exact ones; for the fitted ones, the residual that is stated."""
    pycolmap = pytest.importorskip("pycolmap", reason="the extra `photos` is not installed")
    if model not in pycolmap.CameraModelId.__members__:
        pytest.skip(f"pycolmap {pycolmap.__version__} does not have {model}")
    parameters = {**EXACT, **FITTED}[model]
    theirs = pycolmap.Camera(model=model, width=SIZE[0], height=SIZE[1], params=parameters)
    wanted = theirs.img_from_cam(directions())
    good = np.isfinite(wanted).all(-1) & (wanted >= 0).all(-1) & (wanted <= SIZE).all(-1)
    found = lens(model, parameters)
    off = np.linalg.norm(project(found, directions()) - wanted, axis=-1)[good]
    assert good.sum() > 100
    assert off.max() <= (1e-9 if model in EXACT else 1.2 * found.residual + 1e-6)


def test_simple_radial_is_r_squared():
    found = lens("SIMPLE_RADIAL", EXACT["SIMPLE_RADIAL"])
    x, y = 0.3, -0.2
    scale = 1 + 0.1 * (x * x + y * y)
    np.testing.assert_allclose(project(found, np.array([[x, y, 1]]) * 3), [[500 + 700 * x * scale, 400 + 700 * y * scale]])


def test_simple_fisheye_is_the_angle():
    pixel = project(lens("SIMPLE_FISHEYE", EXACT["SIMPLE_FISHEYE"]), np.array([[1.0, 0, 1]]))
    np.testing.assert_allclose(pixel, [[500 + 400 * np.pi / 4, 400]])


def test_fov_is_fitted_to_a_thousandth_of_a_pixel():
    """Devernay and Faugeras: distorted radius = atan(2 r tan(omega / 2)) / omega."""
    found = lens("FOV", FITTED["FOV"])
    x = np.linspace(-0.9, 0.9, 50)
    wanted = 510 + 500 * np.arctan(2 * x * np.tan(0.45)) / 0.9
    pixels = project(found, np.stack([x, 0 * x, 1 + 0 * x], -1))
    assert found.model == FISHEYE
    assert found.residual < 1e-3  # measured 1.5e-4
    np.testing.assert_allclose(pixels[:, 0], wanted, atol=1.2 * found.residual)


def test_models_are_the_simplest_that_serve():
    kinds = {model: lens(model, parameters).model for model, parameters in EXACT.items()}
    assert kinds["PINHOLE"] == PINHOLE
    assert kinds["OPENCV"] == OPENCV
    assert kinds["OPENCV_FISHEYE"] == FISHEYE
    assert kinds["EQUIRECTANGULAR"] == EQUIRECTANGULAR
    assert lens("SIMPLE_RADIAL", (700, 500, 400, 0)).model == PINHOLE


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE", "PINHOLE"])
def test_four_quarter_turns_are_none(model):
    found = turned = lens(model, EXACT[model])
    for _ in range(4):
        turned = turned.turned()
    np.testing.assert_allclose(turned.intrinsics, found.intrinsics)
    np.testing.assert_array_equal(turned.distortion, found.distortion)


def test_a_fit_is_noted_in_pixels_and_a_bad_one_refused(tmp_path):
    sample.make(tmp_path)
    file = tmp_path / "sparse/0/cameras.txt"
    file.write_text("1 FOV 80 60 70 72 41 29 0.9\n")
    assert any("FOV fitted" in note and "px" in note for note in colmap.read(tmp_path, False).notes)
    file.write_text("1 THIN_PRISM_FISHEYE 80 60 70 72 41 29 0 0 0.2 0.2 0 0 0 0\n")
    with pytest.raises(SceneError, match="image_undistorter"):
        colmap.read(tmp_path, False)


@pytest.mark.parametrize("model", [*FITTED])
@pytest.mark.parametrize("value", [-1e8, -1.0, 0.0, 1e8])
def test_absurd_coefficients_give_a_lens_or_a_bad_fit_but_no_failure(model, value):
    n_focal = 1 if model == "SIMPLE_DIVISION" else 2
    parameters = (400.0,) * n_focal + (500.0, 400.0) + (value,) * (N_PARAMETERS[model] - n_focal - 2)
    found = lens(model, parameters)
    assert found.residual >= 0
