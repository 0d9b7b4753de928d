"""Depth of an image and relative pose of a pair, of one camera.

model = DepthPose(DepthPoseSettings())
depth = model.depth(images)                    # [n, size, size] of images [n, 3, ·, ·] from −1 to 1
motion = model.motion(a, b, a_is_first)        # [n, 3, 4] from a's camera to b's
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from taichi_nerf.generator.depth_pose.geometry import chained, depth_of, focal_of, intrinsics_of, inverted, motion_of
from taichi_nerf.generator.depth_pose.networks import DepthDecoder, Encoder, PoseDecoder
from taichi_nerf.generator.stylegan2.generator import smaller
from taichi_nerf.settings import added

MULTIPLE = 32  # of which the networks' image size has to be one


@dataclass(frozen=True)
class DepthPoseSettings:
    """The published networks have width 64, depths from 0.1 to 100, pivot 0 and shift 1; these are for one object that turns.

    Shifts would explain most of a turn as long as depths are flat, and then nothing would tell depths apart.
    """

    width: int = 64
    size: int = 64  # pixels a side of what the networks see
    nearest: float = 0.7  # depths, in units of the camera's distance from the object
    farthest: float = 1.4
    field_of_view: float = 25.2  # degrees
    learn_focal: bool = False  # starting from the field of view
    pivot: float = 1.0  # depth of the point that poses turn about
    shift: float = added(0.0, before=1.0)  # share of its translations that a pose makes: 0, it only turns; published: 1

    def __post_init__(self) -> None:
        if self.size < 2 * MULTIPLE or self.size % MULTIPLE:
            raise ValueError(f"size: expected a multiple of {MULTIPLE} from {2 * MULTIPLE} on, got {self.size}")
        if not 0 < self.nearest < self.farthest:
            raise ValueError(f"nearest, farthest: expected 0 < nearest < farthest, got {self.nearest} and {self.farthest}")


class DepthPose(nn.Module):
    """The four networks and the focal length a², in units of the image's width (as learned in NeRF−−, Wang et al. 2021)."""

    def __init__(self, settings: DepthPoseSettings):
        super().__init__()
        self.settings = settings
        self.encoder, self.pose_encoder = Encoder(settings.width), Encoder(settings.width, 2)
        self.depth_decoder = DepthDecoder(self.encoder.channels)
        self.pose_decoder = PoseDecoder(self.encoder.channels[-1])
        root = torch.tensor(focal_of(settings.field_of_view)).sqrt()
        self.root_of_focal = nn.Parameter(root, requires_grad=settings.learn_focal)

    def seen(self, images: Tensor) -> Tensor:
        """Images from −1 to 1 as the networks see them: from 0 to 1, of their size."""
        images = (images.clamp(-1, 1) + 1) / 2
        size = self.settings.size
        if images.shape[-1] < size:
            return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        return smaller(images, size)

    def disparities(self, seen: Tensor) -> list[Tensor]:
        """[n, 1, ·, ·] from 0 to 1 at four scales."""
        return self.depth_decoder(self.encoder(seen))

    def depth_of(self, disparity: Tensor) -> Tensor:
        return depth_of(disparity, self.settings.nearest, self.settings.farthest)

    def depth(self, images: Tensor) -> Tensor:
        return self.depth_of(self.disparities(self.seen(images))[0])[:, 0]

    def six(self, first: Tensor, second: Tensor) -> Tensor:
        """Axis-angle and translation [n, 6] from the first image's camera to the second's; both as the networks see them."""
        found = self.pose_decoder(self.pose_encoder(torch.cat([first, second], 1)))
        return torch.cat([found[:, :3], self.settings.shift * found[:, 3:]], -1)

    def motion_seen(self, a: Tensor, b: Tensor, a_is_first: Tensor) -> Tensor:
        """[n, 3, 4] from a's camera to b's. The network always sees the pair in the order of the turn; others are inverted."""
        chosen = a_is_first.view(-1, 1, 1, 1)
        motion = motion_of(self.six(torch.where(chosen, a, b), torch.where(chosen, b, a)), self.settings.pivot)
        return torch.where(a_is_first.view(-1, 1, 1), motion, inverted(motion))

    def motion(self, a: Tensor, b: Tensor, a_is_first: Tensor) -> Tensor:
        return self.motion_seen(self.seen(a), self.seen(b), a_is_first)

    def motions_along(self, images: Tensor, middle: int) -> Tensor:
        """[n, 3, 4] from the camera of image `middle` to that of each of the images, which lie in the order of the turn.

        The poses of neighbours are chained: what the networks learned is how neighbours differ.
        """
        seen = self.seen(images)
        steps = motion_of(self.six(seen[:-1], seen[1:]), self.settings.pivot)
        eye = torch.eye(3, 4, device=images.device)[None]
        found: dict[int, Tensor] = {middle: eye}
        for i in range(middle, len(images) - 1):
            found[i + 1] = chained(found[i], steps[i : i + 1])
        for i in range(middle, 0, -1):
            found[i - 1] = chained(found[i], inverted(steps[i - 1 : i]))
        return torch.cat([found[i] for i in range(len(images))])

    def intrinsics(self, size: int, n: int) -> Tensor:
        """[n, 4] of images of that size."""
        return intrinsics_of(self.root_of_focal.square(), size, n)
