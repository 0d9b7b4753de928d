"""COLMAP's eighteen camera models: each as one of ours, the fitted ones with an honest residual."""

import numpy as np
import pytest
import sample_colmap as sample

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, OPENCV, PINHOLE, make_cameras
from taichi_nerf.scenes import colmap, colmap_lenses
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


def even(r2, *k):
    """k1 r² + k2 r⁴ + …"""
    return sum(factor * r2 ** (i + 1) for i, factor in enumerate(k))


def straight(x, y, z, radial=(), p=(0.0, 0.0), under=()):
    u, v = x / z, y / z
    r2 = u * u + v * v
    factor = (1 + even(r2, *radial)) / (1 + even(r2, *under))
    return u * factor + 2 * p[0] * u * v + p[1] * (r2 + 2 * u * u), v * factor + p[0] * (r2 + 2 * v * v) + 2 * p[1] * u * v


def by_angle(x, y, z, radial=(), p=(0.0, 0.0), prism=(0.0, 0.0)):
    r = np.hypot(x, y)
    theta = np.arctan2(r, z)
    u, v, t2 = x / r * theta, y / r * theta, theta * theta
    factor = 1 + even(t2, *radial)
    a = u * factor + 2 * p[0] * u * v + p[1] * (t2 + 2 * u * u) + prism[0] * t2
    return a, v * factor + p[0] * (t2 + 2 * v * v) + 2 * p[1] * u * v + prism[1] * t2


def of_aria(x, y, z, *k):
    """Radial first; the tangential and prism terms are of what that gives."""
    u, v = by_angle(x, y, z, k[:6])
    r2, (p0, p1, s0, s1, s2, s3) = u * u + v * v, k[6:]
    a = u + p0 * (r2 + 2 * u * u) + 2 * p1 * u * v + s0 * r2 + s1 * r2 * r2
    return a, v + p1 * (r2 + 2 * v * v) + 2 * p0 * u * v + s2 * r2 + s3 * r2 * r2


def unified(x, y, z, alpha, beta):
    depth = alpha * np.sqrt(beta * (x * x + y * y) + z * z) + (1 - alpha) * z
    return x / depth, y / depth


def of_fov(x, y, z, omega):
    r = np.hypot(x, y)
    factor = np.arctan(2 * r / z * np.tan(omega / 2)) / omega / r
    return x * factor, y * factor


def divided(x, y, z, k):
    """Solved for by bisection: undistorted = distorted / (1 + k distorted²)."""
    r = np.hypot(x, y) / z
    low, high = np.zeros_like(r), r.copy()
    for _ in range(80):
        middle = (low + high) / 2
        beyond = middle / (1 + k * middle * middle) > r
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return x / z * low / r, y / z * low / r


ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
ONE_FOCAL += ("SIMPLE_DIVISION",)
# What COLMAP's documentation says of each, by x, y, z and the parameters behind the principal point.
FORMULAS = {
    "SIMPLE_PINHOLE": straight,
    "PINHOLE": straight,
    "SIMPLE_RADIAL": lambda *xyz_k: straight(*xyz_k[:3], xyz_k[3:]),
    "RADIAL": lambda *xyz_k: straight(*xyz_k[:3], xyz_k[3:]),
    "OPENCV": lambda x, y, z, k1, k2, p1, p2: straight(x, y, z, (k1, k2), (p1, p2)),
    "FULL_OPENCV": lambda x, y, z, k1, k2, p1, p2, k3, *under: straight(x, y, z, (k1, k2, k3), (p1, p2), under),
    "OPENCV_FISHEYE": lambda *xyz_k: by_angle(*xyz_k[:3], xyz_k[3:]),
    "SIMPLE_FISHEYE": by_angle,
    "FISHEYE": by_angle,
    "SIMPLE_RADIAL_FISHEYE": lambda *xyz_k: by_angle(*xyz_k[:3], xyz_k[3:]),
    "RADIAL_FISHEYE": lambda *xyz_k: by_angle(*xyz_k[:3], xyz_k[3:]),
    "FOV": of_fov,
    "SIMPLE_DIVISION": divided,
    "DIVISION": divided,
    "EUCM": unified,
    "THIN_PRISM_FISHEYE": lambda x, y, z, k1, k2, p1, p2, k3, k4, *s: by_angle(x, y, z, (k1, k2, k3, k4), (p1, p2), s),
    "RAD_TAN_THIN_PRISM_FISHEYE": of_aria,
}


@pytest.mark.parametrize("model", FORMULAS)
def test_projects_as_colmap_documents(model):
    """Also where COLMAP itself is not installed. Of the fitted ones what the fit is to is compared."""
    parameters = {**EXACT, **FITTED}[model]
    n_focal = 1 if model in ONE_FOCAL else 2
    focal, center, rest = parameters[:n_focal], parameters[n_focal : n_focal + 2], parameters[n_focal + 2 :]
    points = directions(500)
    points = points[np.hypot(points[:, 0], points[:, 1]) < 0.9 * points[:, 2]]
    wanted = np.stack(FORMULAS[model](*points.T, *rest), -1)
    if model in EXACT:
        found = project(lens(model, parameters), points)
        np.testing.assert_allclose(found, wanted * focal + center, atol=1e-9)
    else:
        angle, around = np.arctan2(np.hypot(*points[:, :2].T), points[:, 2]), np.arctan2(points[:, 1], points[:, 0])
        np.testing.assert_allclose(colmap_lenses.FITTED[model][0](angle, around, np.array(rest)), wanted, atol=1e-12)


def test_a_panorama_is_a_whole_sphere():
    found = project(
        lens("EQUIRECTANGULAR", EXACT["EQUIRECTANGULAR"]), np.array([[0, 0, 1.0], [1, 0, 0], [0, 0.6, 0.8], [0, 1, 0]])
    )
    below = 400 + 800 * np.arcsin(0.6) / np.pi
    np.testing.assert_allclose(found, [[500, 400], [750, 400], [500, below], [500, 800]], atol=1e-9)


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
