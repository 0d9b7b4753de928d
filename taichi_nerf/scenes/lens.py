"""A lens as readers find it, in the pixels of one picture, and cameras made of such lenses and poses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from taichi_nerf.cameras import OPENCV, Array, Cameras, make_cameras


@dataclass(frozen=True)
class Lens:
    """A lens in the pixels of an image of `size`."""

    size: tuple[int, int]  # width, height
    intrinsics: Array  # [4] fx, fy, cx, cy
    model: int
    distortion: Array  # [8]
    residual: float = 0.0  # largest distance in pixels to the file's own lens anywhere in the image
    mean_residual: float = 0.0

    def scaled(self, width: int, height: int) -> "Lens":
        x, y = width / self.size[0], height / self.size[1]
        larger = max(x, y)
        return replace(
            self,
            size=(width, height),
            intrinsics=self.intrinsics * np.array([x, y, x, y]),
            residual=self.residual * larger,
            mean_residual=self.mean_residual * larger,
        )

    def turned(self) -> "Lens":
        """For the image turned clockwise by 90 degrees: the pixel (u, v) is at (height - v, u). Radial terms stay."""
        fx, fy, cx, cy = self.intrinsics
        distortion = self.distortion.copy()
        if self.model == OPENCV:  # the tangential terms, behind k1 to k6, are r² P + 2 (P · x) x with the vector P = (p2, p1)
            p1, p2 = self.distortion[6:]
            distortion[6:] = p2, -p1
        width, height = self.size
        return replace(self, size=(height, width), intrinsics=np.array([fy, fx, height - cy, cx]), distortion=distortion)


def cameras_of(poses: Sequence[Array], lenses: Sequence[Lens]) -> Cameras:  # each [3, 4] OpenCV camera to world
    return make_cameras(
        np.stack(poses),
        np.stack([lens.intrinsics for lens in lenses]),
        np.array([lens.size for lens in lenses]),
        np.array([lens.model for lens in lenses]),
        np.stack([lens.distortion for lens in lenses]),
    )
