"""Cameras in numpy, 64 bits: where each stands, how its lens bends light, and the projection both ways.

OpenCV conventions: x right, y down, z forward; K in pixels; the centre of the first pixel is (0.5, 0.5). The lens models and
their eight coefficients are those of `kernels/ray_generation.py`, by number and layout: arrays pass to the kernels as they are.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

MODELS = ("pinhole", "opencv", "fisheye", "equirectangular", "orthographic")
PINHOLE, OPENCV, FISHEYE, EQUIRECTANGULAR, ORTHOGRAPHIC = range(5)
N_DISTORTION = 8  # k1, k2, k3, k4, k5, k6, p1, p2
LEAST_COSINE = 0.1  # to the axis, of what a pinhole is asked to show


@dataclass(frozen=True)
class Cameras:
    """n cameras. Every array is indexed by camera first."""

    camera_to_worlds: Array  # [n, 3, 4] float64
    intrinsics: Array  # [n, 4] fx, fy, cx, cy
    sizes: Array  # [n, 2] int64 width, height
    models: Array  # [n] int32
    distortion: Array  # [n, 8]

    def __len__(self) -> int:
        return len(self.camera_to_worlds)

    def __getitem__(self, index: Any) -> "Cameras":
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return Cameras(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    @property
    def centers(self) -> Array:
        """[n, 3]"""
        return self.camera_to_worlds[:, :, 3]

    @property
    def forwards(self) -> Array:
        """[n, 3] unit viewing directions."""
        return self.camera_to_worlds[:, :, 2]

    @property
    def world_to_cameras(self) -> Array:
        """[n, 3, 4]"""
        return invert_poses(self.camera_to_worlds)

    def resized(self, sizes: ArrayLike) -> "Cameras":
        """The same views in images of other sizes [n, 2]: fx and cx follow the width, fy and cy the height."""
        new = np.broadcast_to(np.asarray(sizes), self.sizes.shape)
        ratio = new / self.sizes
        return replace(self, sizes=new.astype(np.int64), intrinsics=self.intrinsics * np.concatenate([ratio, ratio], -1))

    def moved(self, scale: float, rotation: Array, translation: Array) -> "Cameras":
        """The cameras after the world is mapped by x → scale · rotation x + translation."""
        poses = self.camera_to_worlds.copy()
        poses[:, :, :3] = rotation @ poses[:, :, :3]
        poses[:, :, 3] = scale * poses[:, :, 3] @ rotation.T + translation
        return replace(self, camera_to_worlds=poses)

    def project(self, camera: int, points: Array) -> tuple[Array, Array]:
        """Pixels [m, 2] and depths along the optical axis [m] of world points [m, 3] in one camera."""
        local = points @ self.world_to_cameras[camera, :, :3].T + self.world_to_cameras[camera, :, 3]
        focal, center = self.intrinsics[camera, :2], self.intrinsics[camera, 2:]
        return project_local(local, int(self.models[camera]), self.distortion[camera]) * focal + center, local[:, 2]

    def rays(self, camera: int, pixels: Array) -> tuple[Array, Array]:
        """Origins and unit directions [m, 3] through pixels [m, 2] of one camera."""
        focal, center = self.intrinsics[camera, :2], self.intrinsics[camera, 2:]
        image_points = (np.asarray(pixels, np.float64) - center) / focal
        rotation, position = self.camera_to_worlds[camera, :, :3], self.camera_to_worlds[camera, :, 3]
        if self.models[camera] == ORTHOGRAPHIC:
            offset = np.concatenate([image_points, np.zeros((len(image_points), 1))], -1)
            return offset @ rotation.T + position, np.broadcast_to(rotation[:, 2], offset.shape).copy()
        local = unproject_local(image_points, int(self.models[camera]), self.distortion[camera])
        return np.broadcast_to(position, local.shape).copy(), local @ rotation.T

    def lenses(self) -> tuple[Array, Array]:
        """The first camera of each lens (many cameras share one), and which of these lenses each camera has."""
        table = np.column_stack([self.models, self.sizes, self.intrinsics, self.distortion])
        _, first, same = np.unique(table, axis=0, return_index=True, return_inverse=True)
        return first, same.reshape(-1)

    def covering_pinholes(self) -> tuple[Array, Array] | None:
        """Intrinsics [n, 4] and sizes [n, 2] of pinholes that see all that these cameras see through their lenses.

        None where a camera has parallel rays, looks all around, or sees things 84° off its axis or more.
        """
        first, same = self.lenses()
        intrinsics, sizes = self.intrinsics[first], self.sizes[first]
        for lens, camera in enumerate(first):
            if self.models[camera] == PINHOLE:
                continue
            if self.models[camera] in (EQUIRECTANGULAR, ORTHOGRAPHIC):
                return None
            focal, center = self.intrinsics[camera, :2], self.intrinsics[camera, 2:]
            border = (_border(self.sizes[camera]) - center) / focal
            local = unproject_local(border, int(self.models[camera]), self.distortion[camera])
            if not local[:, 2].min() > LEAST_COSINE:  # nor where the lens has no direction for a pixel
                return None
            slopes, width = local[:, :2] / local[:, 2:], np.abs(focal)
            intrinsics[lens] = [*width, *(-slopes.min(0) * width)]
            sizes[lens] = np.ceil((slopes.max(0) - slopes.min(0)) * width)
        return intrinsics[same], sizes[same]


def _border(size: Array, n: int = 17) -> Array:
    """Pixels [4 n, 2] along the edges of an image."""
    along, ends = np.linspace(0, 1, n), np.repeat([0.0, 1.0], n)
    edges = np.stack([np.tile(along, 2), ends], -1)
    return np.concatenate([edges, edges[:, ::-1]]) * size


def make_cameras(
    camera_to_worlds: ArrayLike,
    intrinsics: ArrayLike,
    sizes: ArrayLike,
    models: ArrayLike = PINHOLE,
    distortion: ArrayLike | None = None,
) -> Cameras:
    """Cameras from arrays, or from single values that all of them share. Poses may be [n, 3, 4] or [n, 4, 4]."""
    poses = np.asarray(camera_to_worlds, np.float64)[:, :3, :4].copy()
    n = len(poses)
    lens = np.zeros(N_DISTORTION) if distortion is None else np.asarray(distortion, np.float64)
    return Cameras(
        poses,
        np.broadcast_to(np.asarray(intrinsics, np.float64), (n, 4)).copy(),
        np.broadcast_to(np.asarray(sizes, np.int64), (n, 2)).copy(),
        np.broadcast_to(np.asarray(models, np.int32), (n,)).copy(),
        np.broadcast_to(lens, (n, N_DISTORTION)).copy(),
    )


def concatenate(parts: list[Cameras]) -> Cameras:
    return Cameras(*(np.concatenate([getattr(part, name) for part in parts]) for name in Cameras.__dataclass_fields__))


def invert_poses(poses: Array) -> Array:
    """[n, 3, 4] to [n, 3, 4]; the rotation part may be any invertible matrix."""
    inverse = np.linalg.inv(poses[:, :, :3])
    return np.concatenate([inverse, -inverse @ poses[:, :, 3:]], -1)


def opengl_to_opencv(poses: ArrayLike) -> Array:
    """Camera-to-world matrices [n, 3 or 4, 4] of cameras with y up that look along -z, as Blender writes them."""
    flipped = np.array(poses, np.float64)
    flipped[:, :, 1:3] *= -1
    return flipped


def focus_point(centers: Array, forwards: Array) -> Array:
    """The point nearest to all viewing axes, in the sense of least squares; for parallel axes, the nearest to the centers."""
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    matrix = across.sum(0) + 1e-9 * len(centers) * np.eye(3)
    return np.linalg.solve(matrix, (across @ centers[..., None]).sum(0)[:, 0] + 1e-9 * len(centers) * centers.mean(0))


def upward(cameras: Cameras, n_iterations: int = 20) -> Array:
    """[3] which way is up: across the cameras' horizontal axes, as people hold cameras level; else their mean own up.

    Axes count by the inverse of how far they are from level, so that some pictures taken on end do not tilt the scene.
    """
    mean = -cameras.camera_to_worlds[:, :, 1].mean(0)
    across = cameras.camera_to_worlds[:, :, 0]
    found = mean
    for _ in range(n_iterations):
        weights = 1 / np.maximum(np.abs(across @ found), 0.05)
        matrix = (across * weights[:, None]).T @ across / weights.sum() - 0.01 * np.outer(mean, mean)
        found = np.linalg.eigh(matrix)[1][:, 0]
    return found if found @ mean >= 0 else -found


def least_turn(start: Array, end: Array) -> Array:
    """[3, 3] the smallest rotation from one unit vector to another that is not opposite."""
    x, y, z = np.cross(start, end)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)


# --- lenses: image points are ((x - cx) / fx, (y - cy) / fy) --------------------------------------------------------


def project_local(points: Array, model: int, k: Array) -> Array:
    """Image points [m, 2] of camera-space points [m, 3]. Pinhole-like lenses see only z > 0: NaN elsewhere."""
    x, y, z = points.T
    if model == ORTHOGRAPHIC:
        return points[:, :2].copy()
    if model == EQUIRECTANGULAR:
        return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], -1)
    if model == FISHEYE:
        r = np.hypot(x, y)
        theta = np.arctan2(r, z)
        along = np.stack([x, y], -1) / np.where(r > 0, r, 1)[:, None]
        return along * (theta * fisheye_polynomial(theta, k)[0])[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = points[:, :2] / np.where(z > 0, z, np.nan)[:, None]
    return flat if model == PINHOLE else distort(flat, k)


def unproject_local(image_points: Array, model: int, k: Array) -> Array:
    """Unit camera-space directions [m, 3] that a lens maps to image points [m, 2]; NaN where none is."""
    a, b = np.asarray(image_points, np.float64).T
    if model == EQUIRECTANGULAR:
        return np.stack([np.cos(b) * np.sin(a), np.sin(b), np.cos(b) * np.cos(a)], -1)
    if model == ORTHOGRAPHIC:
        return np.broadcast_to(np.array([0.0, 0, 1]), (len(a), 3)).copy()
    if model == FISHEYE:
        r = np.hypot(a, b)
        theta = undistort_angle(r, k)
        along = np.stack([a, b], -1) / np.where(r > 0, r, 1)[:, None]
        return np.concatenate([along * np.sin(theta)[:, None], np.cos(theta)[:, None]], -1)
    flat = image_points if model == PINHOLE else undistort(image_points, k)
    directions = np.concatenate([flat, np.ones((len(flat), 1))], -1)
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def distort(points: Array, k: Array) -> Array:
    """OpenCV's rational radial and tangential model on image points [m, 2]."""
    return _distort(points, k)[0]


def _distort(points: Array, k: Array) -> tuple[Array, Array]:
    """The distorted points [m, 2] and the Jacobian [m, 2, 2]."""
    k1, k2, k3, k4, k5, k6, p1, p2 = k
    p, q = points.T
    r2 = p * p + q * q
    denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / denominator
    slope = (k1 + r2 * (2 * k2 + 3 * r2 * k3) - radial * (k4 + r2 * (2 * k5 + 3 * r2 * k6))) / denominator
    a = p * radial + 2 * p1 * p * q + p2 * (r2 + 2 * p * p)
    b = q * radial + p1 * (r2 + 2 * q * q) + 2 * p2 * p * q
    a_p = radial + 2 * p * p * slope + 2 * p1 * q + 6 * p2 * p
    a_q = 2 * p * q * slope + 2 * p1 * p + 2 * p2 * q
    b_q = radial + 2 * q * q * slope + 6 * p1 * q + 2 * p2 * p
    return np.stack([a, b], -1), np.stack([np.stack([a_p, a_q], -1), np.stack([a_q, b_q], -1)], -2)


def undistort(points: ArrayLike, k: Array, n_iterations: int = 60) -> Array:
    """The inverse of `distort` by damped Newton steps from the axis; NaN where no point within the lens' fold maps there."""
    limit = _next_branch(k)
    wanted = np.asarray(points, np.float64)
    found = np.zeros_like(wanted)
    step = wanted.copy()
    fraction = np.ones(len(wanted))
    error = (wanted**2).sum(-1)
    for _ in range(n_iterations):
        candidate = found + fraction[:, None] * step
        reached, jacobian = _distort(candidate, k)
        miss = wanted - reached
        new_error = (miss**2).sum(-1)
        determinant = np.linalg.det(jacobian)
        r2 = (candidate**2).sum(-1)
        inside = (r2 < limit) & (1 + r2 * (k[3] + r2 * (k[4] + r2 * k[5])) > 0)
        better = (new_error < error) & inside & (determinant > 0) & (jacobian[:, 0, 0] + jacobian[:, 1, 1] > 0)
        if better.any():
            found[better], error[better] = candidate[better], new_error[better]
            step[better] = np.linalg.solve(jacobian[better], miss[better][..., None])[..., 0]
        fraction = np.where(better, 1.0, fraction / 2)
        if (fraction * np.abs(step).max(-1, initial=0) < 1e-15 * (1 + np.abs(found).max(-1, initial=0))).all():
            break
    found[error > 1e-20 * (1 + (wanted**2).sum(-1))] = np.nan
    return found


def _next_branch(k: Array) -> float:
    """r² at which the radial factor, behind its first fold or pole, could be invertible again; infinite for usual lenses.

    With N / D the factor, D² ∂(r N / D) / ∂r is the sum of (1 + 2 i - 2 j) N_i D_j r^(2 i + 2 j).
    """
    over, under = np.array([1, *k[:3]]), np.array([1, *k[3:6]])
    slope = np.zeros(7)
    for i, j in np.ndindex(4, 4):
        slope[i + j] += (1 + 2 * i - 2 * j) * over[i] * under[j]
    roots = np.concatenate([np.roots(slope[::-1]), np.roots(under[::-1])])
    ends = np.sort(roots.real[(np.abs(roots.imag) <= 1e-9 * np.abs(roots)) & (roots.real > 0)])
    return float(ends[1]) if len(ends) > 1 else np.inf


def fisheye_polynomial(theta: Array, k: Array) -> tuple[Array, Array]:
    """1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸, and the derivative of θ times it."""
    t = theta * theta
    value = 1 + t * (k[0] + t * (k[1] + t * (k[2] + t * k[3])))
    return value, 1 + t * (3 * k[0] + t * (5 * k[1] + t * (7 * k[2] + t * 9 * k[3])))


def undistort_angle(radius: Array, k: Array, n_iterations: int = 60) -> Array:
    """θ with θ · polynomial(θ) = radius, by damped Newton steps from 0; NaN beyond the fold or half a turn."""
    theta, step, fraction = np.zeros_like(radius), np.minimum(radius, np.pi), np.ones_like(radius)
    error = radius.copy()
    for _ in range(n_iterations):
        candidate = theta + fraction * step
        value, slope = fisheye_polynomial(candidate, k)
        miss = radius - candidate * value
        better = (np.abs(miss) < error) & (slope > 0) & (candidate <= np.pi)
        theta, error = np.where(better, candidate, theta), np.where(better, np.abs(miss), error)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(better, miss / slope, step)
        fraction = np.where(better, 1.0, fraction / 2)
        if (fraction * np.abs(step) < 1e-15).all():
            break
    return np.where(error <= 1e-10 * (1 + radius), theta, np.nan)
