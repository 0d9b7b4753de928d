"""pixelNeRF's field: features of source pictures, looked up where a point lies in each of them, condition a network.

A point x, seen along d, is moved into each source view (R x + t), projected there, and asked about with the features at that
pixel, its place and direction in the view's own axes: f(γ(R x), R d, F(π(x))), Yu et al. 2021, equations 3 to 6. γ(x) = (x,
sin(1.5 2^k x), cos(1.5 2^k x), k < 6). As published, the place is turned and not moved: the world's origin matters.

Parameters have the published names: encoder.model.*, code.*, mlp_coarse.*, mlp_fine.*.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from taichi_nerf.fields.image_encoder import EncoderSettings, ImageEncoder
from taichi_nerf.fields.mlp import Precision
from taichi_nerf.fields.ranges import LAYERS, WIDTHS, check_ranges
from taichi_nerf.fields.resnet_mlp import ResnetMlp
from taichi_nerf.ops import frequency_encoding, image_warp

FREQUENCY = 1.5  # of the first pair of waves
LARGEST_LOG_DENSITY = 12.0
AT_ONCE = 2**19  # numbers of a layer: points times views times width, which stay in cache


@dataclass(frozen=True)
class PixelAlignedSettings:
    n_hidden: int = 512
    n_blocks: int = 5
    n_inject: int = 3  # blocks before which features are added; the views are averaged after these
    n_frequencies: int = 6
    # view: R x, as published; view_moved: R x + t, which leaves it open where the world's origin is; world_and_view: x and R x,
    # for objects that all stand the same way, whose common shape is learned several times as fast
    places: Literal["view", "view_moved", "world_and_view"] = "view"
    density: Literal["relu", "softplus", "exp"] = "relu"
    log_density: float = 0.0  # of a new field, where density is exp
    has_fine: bool = True  # a network of its own for the second look
    # repo: pixel i lies at i, in rays and in lookups; centres: at i + 0.5, as cameras are described everywhere in this package
    compat: Literal["centres", "repo"] = "centres"
    precision: Precision = "float32"  # of the networks that are asked about points

    def __post_init__(self) -> None:
        octaves = (1, frequency_encoding.MOST_FREQUENCIES)
        check_ranges(self, n_hidden=WIDTHS, n_blocks=LAYERS, n_inject=(1, self.n_blocks), n_frequencies=octaves)

    @property
    def without_effect(self) -> dict[str, str]:
        return {} if self.density == "exp" else {"log_density": "without field.density=exp"}

    @property
    def pixel_center(self) -> float:
        """Where pixel 0 lies."""
        return 0.0 if self.compat == "repo" else 0.5


class Sources(NamedTuple):
    """Pictures that tell what an object is."""

    pictures: Tensor  # [n_views, 3, h, w] from 0 to 1
    world_to_cameras: Tensor  # [n_views, 3, 4] OpenCV
    intrinsics: Tensor  # [n_views, 4] fx, fy, cx, cy
    filled: Tensor | None = None  # [n_views, h, w] bool: where the object may be; None: everywhere


class Encoded(NamedTuple):
    """Sources, ready to be asked."""

    coarse: Tensor  # [n_views, h / 2, w / 2, n_inject * n_hidden]
    fine: Tensor | None
    sources: Sources


class PositionalCode(nn.Module):
    """Holds what the published files hold of it; `frequency_encoding` computes."""

    _freqs: Tensor
    _phases: Tensor

    def __init__(self, n_frequencies: int):
        super().__init__()
        freqs = FREQUENCY * 2.0 ** torch.arange(n_frequencies)
        self.register_buffer("_freqs", freqs.repeat_interleave(2).view(1, -1, 1))
        self.register_buffer("_phases", torch.tensor([0.0, math.pi / 2]).repeat(n_frequencies).view(1, -1, 1))


class PixelAlignedField(nn.Module):
    def __init__(self, settings: PixelAlignedSettings, encoder: EncoderSettings, generator: torch.Generator):
        super().__init__()
        self.settings = settings
        self.encoder = ImageEncoder(encoder, generator)
        self.code = PositionalCode(settings.n_frequencies)
        self.mlp_coarse = self._network(generator)
        self.mlp_fine = self._network(generator) if settings.has_fine else None
        self.register_buffer("axes", torch.tensor([1.0, -1.0, -1.0]), persistent=False)  # y up, z backward, as published
        self.dtype = getattr(torch, settings.precision)

    axes: Tensor

    def encode(self, sources: Sources) -> Encoded:
        return self.encode_all([sources])[0]

    def encode_all(self, objects: list[Sources]) -> list[Encoded]:
        """The sources of several objects, of as many pictures or not, in one pass of the encoder if all have one size."""
        if len({sources.pictures.shape[2:] for sources in objects}) > 1:
            return [self.encode(sources) for sources in objects]
        taps = self.encoder(torch.cat([sources.pictures for sources in objects]))
        counts = [len(sources.pictures) for sources in objects]
        coarse = self.mlp_coarse.project(taps).split(counts)
        fine = [None] * len(objects) if self.mlp_fine is None else self.mlp_fine.project(taps).split(counts)
        return [Encoded(*parts) for parts in zip(coarse, fine, objects, strict=True)]

    def forward(self, encoded: Encoded, positions: Tensor, directions: Tensor, fine: bool = False) -> tuple[Tensor, Tensor]:
        """Density [n] and color [n, 3] at positions [n, 3] along unit directions [n, 3]."""
        network, features = (self.mlp_fine, encoded.fine) if fine else (self.mlp_coarse, encoded.coarse)
        if network is None or features is None:
            network, features = self.mlp_coarse, encoded.coarse
        sources = encoded.sources
        pixels, _ = image_warp.project_points(positions, sources.world_to_cameras, sources.intrinsics)
        height, width = sources.pictures.shape[2:]
        scale = pixels.new_tensor([features.shape[2] / width, features.shape[1] / height])
        shift = self.settings.pixel_center
        looked_up = image_warp.gather_features(features, (pixels - shift) * scale, align="corners")
        out = network(self.encode_places(sources, positions, directions), looked_up, self.dtype)
        return self._density(out[:, 3]), torch.sigmoid(out[:, :3])

    @torch.no_grad()
    def look(self, encoded: Encoded, positions: Tensor, directions: Tensor, fine: bool = False) -> tuple[Tensor, Tensor]:
        """As `forward`, without gradients and in parts that stay in cache."""
        n, n_views = len(positions), len(encoded.sources.intrinsics)
        density, color = positions.new_empty(n), positions.new_empty(n, 3)
        step = max(1, AT_ONCE // (n_views * self.settings.n_hidden))
        for start in range(0, n, step):
            part = slice(start, start + step)
            density[part], color[part] = self(encoded, positions[part], directions[part], fine)
        return density, color

    def encode_places(self, sources: Sources, positions: Tensor, directions: Tensor) -> Tensor:
        """[n_views, n, n_code]"""
        rotation, offset = sources.world_to_cameras[:, :, :3], sources.world_to_cameras[:, None, :, 3]
        places = positions @ rotation.mT
        places = (places + offset if self.settings.places == "view_moved" else places) * self.axes
        seen_along = (directions @ rotation.mT) * self.axes
        parts = [self._waves(places), seen_along]
        if self.settings.places == "world_and_view":
            parts.insert(0, self._waves(positions).expand(len(places), -1, -1))
        return torch.cat(parts, -1)

    def _waves(self, places: Tensor) -> Tensor:  # [..., 3]
        waves = frequency_encoding.frequency_encoding(
            places.reshape(-1, 3), n_frequencies=self.settings.n_frequencies, base_frequency=FREQUENCY, include_identity=True
        )
        return waves.view(*places.shape[:-1], -1)

    def may_be_filled(self, sources: Sources, positions: Tensor) -> Tensor:
        """[n] bool: whether no source sees through the point. Where a picture does not reach, it tells nothing."""
        assert sources.filled is not None
        pixels, depths = image_warp.project_points(positions, sources.world_to_cameras, sources.intrinsics)
        n_views, height, width = sources.filled.shape
        x, y = pixels.floor().long().unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (depths > 0)
        index = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)
        return (sources.filled.view(n_views, -1).gather(1, index) | ~inside).all(0)

    def _network(self, generator: torch.Generator) -> ResnetMlp:
        settings = self.settings
        n_code = (3 + 6 * settings.n_frequencies) * (1 + (settings.places == "world_and_view")) + 3
        sizes = (n_code, self.encoder.n_features, settings.n_hidden, settings.n_blocks, settings.n_inject)
        return ResnetMlp(*sizes, generator)

    def _density(self, raw: Tensor) -> Tensor:
        if self.settings.density == "relu":
            return torch.relu(raw)
        if self.settings.density == "softplus":
            return nn.functional.softplus(raw - 1)
        return (raw + self.settings.log_density).clamp(max=LARGEST_LOG_DENSITY).exp()
