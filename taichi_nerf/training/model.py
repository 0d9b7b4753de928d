"""What training, evaluation, rendering and export ask of a method's model. Each method is one file that answers."""

from abc import ABC, abstractmethod
from typing import NamedTuple, SupportsInt

import torch
from torch import Tensor, nn

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import Picture, RenderedBatch
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import Config


class Shown(NamedTuple):
    """What a step compares the model with: n pixels, and what they show."""

    rays: Rays
    views: Tensor  # [n] int32
    truth: Tensor  # [n, 3] over the background
    background: Tensor  # [n, 3]
    weight: Tensor | None  # [n] of its error in the loss; None: one
    depth: Tensor | None  # [n] along the ray, 0 where unknown
    alpha: Tensor | None = None  # [n] how much of the pixel is filled; None: all


class Compared(NamedTuple):
    """How far the model is from it."""

    loss: Tensor
    squared: Tensor  # [n] squared errors of colors, without gradients
    n_samples: SupportsInt  # that were looked at; to ask a GPU for the number is to wait for it
    seen: RenderedBatch | None = None  # what rays saw, with gradients, for further terms of the loss; None: not in scene units
    is_whole: Tensor | None = None  # [] bool: whether nothing was left out for want of room; None: nothing was


class Model(nn.Module, ABC):
    """A radiance field with all that rendering it takes, and how it is trained."""

    box: Tensor  # [2, 3] what a bounded scene fills, in scene units
    first_n_rays: int  # of the first step, of all ranks together
    needs_depth = False  # whether the loss looks at depth
    tells_samples = False  # whether terms of the loss may look at single rays, and at single samples of them

    def __init__(self, config: Config, scene: SceneData):
        super().__init__()
        self.config = config
        self.register_buffer("box", torch.tensor(scene.bounds.box, dtype=torch.float32), persistent=False)
        self.rig = CameraRig(scene.cameras, config.poses.refine, config.poses.intrinsics)

    @property
    def pace(self) -> float:
        """A number that training adapts beside the parameters; of ranks that train together, each takes the mean."""
        return 1.0

    @pace.setter
    def pace(self, value: float) -> None:
        pass

    @abstractmethod
    def optimiser(self) -> torch.optim.Adam:
        """Over all parameters but the cameras'. Each group has a `name` and a `first_lr`, which `rate` scales."""

    @abstractmethod
    def rate(self, progress: float) -> float:
        """The factor of all first learning rates at this share of the training."""

    def prepare(self, scene: SceneData, views: list[int]) -> None:
        """Before the first step: what these views tell beforehand."""

    def before_step(self, n_steps: int, progress: float, generator: torch.Generator) -> None:
        """What changes with time. The generator is the same on all ranks."""

    def rays(self, pixels: Tensor, views: Tensor) -> Rays:  # [n, 2], [n] int32
        """Those that a step follows."""
        return self.rig.rays(pixels, views)

    def gradients_are_finite(self) -> bool:
        """Of arrays that are no parameters of torch's."""
        return True

    @abstractmethod
    def compare(self, shown: Shown, generator: torch.Generator) -> Compared:
        """Render with gradients, and compare."""

    @abstractmethod
    def look(self, rays: Rays, background: Tensor, generator: torch.Generator) -> RenderedBatch:  # [n, 3]
        """What any rays see, with gradients to the field."""

    @abstractmethod
    def density_weights(self) -> list[Tensor]:
        """The weights of the networks that tell density."""

    def next_n_rays(self, n_rays: int, n_samples: int, n_ranks: int) -> int:
        """How many rays the next step of this rank has, after one of `n_rays` that took `n_samples`."""
        return n_rays

    @abstractmethod
    def picture(self, rays: Rays, size: tuple[int, int], with_normals: bool = False) -> Picture:
        """What all pixels (width × height, row by row) see, over black. No gradients."""

    @abstractmethod
    def density(self, positions: Tensor) -> Tensor:  # [n, 3] → [n]
        """Density within the box as pictures see it. No gradients."""

    @abstractmethod
    def color(self, positions: Tensor, directions: Tensor) -> Tensor:  # [n, 3], [n, 3] → [n, 3]
        """Color as seen along unit directions."""
