"""COLMAP's camera models as ours.

Exactly: the pinhole, radial and OpenCV ones as pinhole or opencv; the equidistant ones (angle θ from the axis lands at radius
θ + k1 θ³ + k2 θ⁵ + …) as fisheye; EQUIRECTANGULAR. The others have no counterpart and are fitted, over the whole image, by a
fisheye's focal length, center and four coefficients; how far the fit is off, in pixels, stays with the lens.
"""

from collections.abc import Callable

import numpy as np

from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, N_DISTORTION, OPENCV, PINHOLE
from taichi_nerf.scenes.colmap_model import Array, ColmapCamera
from taichi_nerf.scenes.lens import Lens

K1, K2, K3, K4, K5, K6, P1, P2 = range(N_DISTORTION)

# Where the coefficients behind focal lengths and center go.
OPENCV_LIKE = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": (K1,),
    "RADIAL": (K1, K2),
    "OPENCV": (K1, K2, P1, P2),
    "FULL_OPENCV": (K1, K2, P1, P2, K3, K4, K5, K6),
}
FISHEYE_LIKE = {
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "SIMPLE_RADIAL_FISHEYE": (K1,),
    "RADIAL_FISHEYE": (K1, K2),
    "OPENCV_FISHEYE": (K1, K2, K3, K4),
}
ONE_FOCAL = (
    "SIMPLE_PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "SIMPLE_DIVISION",
    "SIMPLE_FISHEYE",
)


def lens_of(camera: ColmapCamera) -> Lens:
    """Ours for COLMAP's, in the pixels that the file speaks of."""
    size = (camera.width, camera.height)
    if camera.model == "EQUIRECTANGULAR":  # its parameters are the size again
        across, down = camera.width / (2 * np.pi), camera.height / np.pi
        return Lens(size, np.array([across, down, camera.width / 2, camera.height / 2]), EQUIRECTANGULAR, np.zeros(N_DISTORTION))
    values = np.array(camera.parameters)
    if camera.model in ONE_FOCAL:
        values = np.concatenate([values[:1], values])
    intrinsics, coefficients = values[:4], values[4:]
    if camera.model in FITTED:
        return _fit(size, intrinsics, coefficients, *FITTED[camera.model])
    places = {**OPENCV_LIKE, **FISHEYE_LIKE}[camera.model]
    distortion = np.zeros(N_DISTORTION)
    distortion[list(places)] = coefficients
    straight = OPENCV if distortion.any() else PINHOLE
    return Lens(size, intrinsics, FISHEYE if camera.model in FISHEYE_LIKE else straight, distortion)


# --- lenses that have to be fitted: image points [m, 2] of directions by their angle from the axis and around it --------


def _fov(angle: Array, around: Array, k: Array) -> Array:
    """Devernay and Faugeras' one-parameter lens."""
    radius = np.arctan(np.tan(angle) * 2 * np.tan(k[0] / 2)) / k[0] if abs(k[0]) > 1e-6 else np.tan(angle)
    return _polar(radius, around)


def _division(angle: Array, around: Array, k: Array) -> Array:
    """Fitzgibbon's: undistorted = distorted / (1 + k distorted²)."""
    flat = np.tan(angle)
    return _polar(2 * flat / (1 + np.sqrt(1 - 4 * k[0] * flat * flat)), around)


def _unified(angle: Array, around: Array, k: Array) -> Array:
    """The enhanced unified model, alpha and beta."""
    flat, z = np.sin(angle), np.cos(angle)
    return _polar(flat / (k[0] * np.sqrt(k[1] * flat * flat + z * z) + (1 - k[0]) * z), around)


def _thin_prism(angle: Array, around: Array, k: Array) -> Array:
    k1, k2, p1, p2, k3, k4, s1, s2 = k
    flat = _polar(angle, around)
    r2 = angle * angle
    radial = r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return flat * (1 + radial)[:, None] + _decentered(flat, p2, p1) + np.stack([s1 * r2, s2 * r2], -1)


def _radial_tangential_thin_prism(angle: Array, around: Array, k: Array) -> Array:
    r2 = angle * angle
    flat = _polar(angle * (1 + r2 * np.polynomial.polynomial.polyval(r2, k[:6])), around)
    r2 = (flat * flat).sum(-1)
    prism = np.stack([r2 * (k[8] + r2 * k[9]), r2 * (k[10] + r2 * k[11])], -1)
    return flat + _decentered(flat, k[6], k[7]) + prism


def _polar(radius: Array, around: Array) -> Array:
    return np.stack([radius * np.cos(around), radius * np.sin(around)], -1)


def _decentered(flat: Array, along_x: float, along_y: float) -> Array:
    vector = np.array([along_x, along_y])
    return (flat * flat).sum(-1)[:, None] * vector + 2 * (flat @ vector)[:, None] * flat


# model: (its projection, the largest angle it can see)
FITTED: dict[str, tuple[Callable[[Array, Array, Array], Array], float]] = {
    "FOV": (_fov, np.pi / 2),
    "SIMPLE_DIVISION": (_division, np.pi / 2),
    "DIVISION": (_division, np.pi / 2),
    "THIN_PRISM_FISHEYE": (_thin_prism, np.pi / 2),
    "RAD_TAN_THIN_PRISM_FISHEYE": (_radial_tangential_thin_prism, 0.75 * np.pi),
    "EUCM": (_unified, 0.75 * np.pi),
}


@np.errstate(all="ignore")
def _fit(
    size: tuple[int, int],
    intrinsics: Array,
    coefficients: Array,
    project: Callable[[Array, Array, Array], Array],
    widest: float,
    n_angles: int = 400,
    n_around: int = 96,
) -> Lens:
    """Linear least squares: radius = c0 θ + c1 θ³ + … + c4 θ⁹, and a shift of the center, to what the lens does in its image."""
    no_fit = Lens(size, intrinsics, FISHEYE, np.zeros(N_DISTORTION), np.inf, np.inf)
    angles = np.linspace(0, widest, n_angles, endpoint=False)[1:]
    corners = (np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * size - intrinsics[2:]) / intrinsics[:2]  # where a fit is worst
    around = np.concatenate([np.arange(n_around) * 2 * np.pi / n_around, np.arctan2(corners[:, 1], corners[:, 0])])
    angle, turn = np.repeat(angles, len(around)), np.tile(around, len(angles))
    flat = project(angle, turn, coefficients)
    pixels = flat * intrinsics[:2] + intrinsics[2:]
    radii = np.hypot(*flat.T).reshape(len(angles), len(around))
    good = ((pixels >= 0) & (pixels <= size)).all(-1).reshape(radii.shape)
    good[1:] &= np.diff(radii, axis=0) > 0
    good = np.logical_and.accumulate(good, axis=0).ravel()  # up to where a ray first leaves the image or the lens folds back
    if good.sum() < 16:
        return no_fit
    angle, turn, flat = angle[good], turn[good], flat[good]
    reach = angle.max()
    powers = (angle / reach)[:, None] ** np.arange(1, 10, 2)
    ones, zeros = np.ones((len(angle), 1)), np.zeros((len(angle), 1))
    rows_x = np.concatenate([powers * np.cos(turn)[:, None], ones, zeros], -1) * intrinsics[0]
    rows_y = np.concatenate([powers * np.sin(turn)[:, None], zeros, ones], -1) * intrinsics[1]
    rows, wanted = np.concatenate([rows_x, rows_y]), (flat * intrinsics[:2]).T.ravel()
    found = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    off = np.hypot(*(rows @ found - wanted).reshape(2, -1))
    c = found[:5] / reach ** np.arange(1, 10, 2)
    if not c[0] > 0:
        return no_fit
    distortion = np.zeros(N_DISTORTION)
    distortion[:4] = c[1:] / c[0]
    fitted = np.concatenate([intrinsics[:2] * c[0], intrinsics[2:] + intrinsics[:2] * found[5:]])
    return Lens(size, fitted, FISHEYE, distortion, float(off.max()), float(off.mean()))
