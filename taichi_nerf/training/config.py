"""Everything that decides how a training goes. `methods.choose` fills it in for a scene; `--set section.key=value` changes it.

`Config` is what every method has; each method has a config of its own kind with the sections that it needs besides, so that a
setting of another method is no setting at all.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from taichi_nerf.choices import Axes, Background, Method, Protocol
from taichi_nerf.fields.density_field import DensitySettings
from taichi_nerf.fields.hash_grid_field import HashGridSettings
from taichi_nerf.fields.ranges import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    INTERVALS,
    POSITIVE,
    RATE,
    RAYS,
    SAMPLES,
    SEEDS,
    SHARE,
    SHARE_BELOW_ONE,
    SOME_SHARE,
    WIDTHS,
    check_ranges,
)
from taichi_nerf.losses import Photometric
from taichi_nerf.rendering import Culling
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancySettings
from taichi_nerf.samplers.proposal_sampler import ProposalSettings
from taichi_nerf.settings import added, idle_in_sections
from taichi_nerf.training.few_view_config import GeometrySettings, PatchPriorSettings


@dataclass(frozen=True)
class SceneSettings:
    """Which views of which scene, as `scenes.load_scene` takes them."""

    path: str
    views: tuple[int, ...] | None = None
    n_views: int | None = None
    downscale: float = 1.0
    center: tuple[float, float, float] | None = None
    scale: float | None = None
    axes: Axes = "auto"
    near: float | None = None
    far: float | None = None
    metric_scale: float | None = None  # metres per unit of length in the file, which a prior has to know; None: guessed
    protocol: Protocol = "spread"  # by which n_views are chosen
    allow_outside: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))  # whoever gives a Path; config.json holds text
        check_ranges(self, metric_scale=POSITIVE)


@dataclass(frozen=True)
class RunSettings:
    method: Method = "ngp"
    preset: str = "default"  # one of the method's
    seed: int = 0
    steps: int | None = None  # None: as long as the time lasts
    time_budget: float | None = None  # seconds of training
    background: Background = "white"  # what pictures with alpha are evaluated and rendered on
    save_every: float = 30.0  # seconds between checkpoints

    def __post_init__(self) -> None:
        check_ranges(self, seed=SEEDS, steps=AT_LEAST_ONE, time_budget=POSITIVE, save_every=AT_LEAST_ZERO)

    def or_steps(self, n: int) -> "RunSettings":
        """With so many steps where nothing else ends it."""
        return replace(self, steps=n) if self.steps is None and self.time_budget is None else self


@dataclass(frozen=True)
class PixelSettings:
    """Which pixels a step looks at, and over what."""

    background: Background = "random"  # that training composites over
    masks: Literal["alpha", "ignore"] = "ignore"  # pixels outside a mask: nothing is there, or nobody knows what is
    importance: float = 0.0  # share of the pixels that are drawn where errors are large
    one_view: bool = False  # all pixels of a step from one picture
    crop_steps: int = 0  # first steps, which only see the middle of pictures
    crop_share: float = 0.5  # of their width and height

    def __post_init__(self) -> None:
        if self.importance and (self.one_view or self.crop_steps):
            raise ValueError(
                f"importance={self.importance:g} draws from whole pictures, all of them: not with one_view or crop_steps; "
                "these go with batch.importance=0"
            )
        check_ranges(self, importance=SHARE, crop_steps=AT_LEAST_ZERO, crop_share=SOME_SHARE)

    @property
    def without_effect(self) -> dict[str, str]:
        return {} if self.crop_steps else {"crop_share": "without batch.crop_steps"}


@dataclass(frozen=True)
class PoseSettings:
    refine: bool = False
    intrinsics: bool = False  # one focal length factor for all
    learning_rate: float = 5e-3  # at first; it falls to 0.4 % of it
    from_step: int = 0
    until: float = added(0.75, before=1.0)  # share of the training after which cameras stay where they are
    # Share of the training after which a hash grid has all its levels; the coarsest come first.
    sharp_from: float = added(0.3, before=0.0)

    def __post_init__(self) -> None:
        check_ranges(self, learning_rate=RATE, from_step=AT_LEAST_ZERO, until=SOME_SHARE, sharp_from=SHARE)


@dataclass(frozen=True)
class Config:
    """What every method has."""

    scene: SceneSettings
    run: RunSettings = RunSettings()
    batch: PixelSettings = PixelSettings()
    poses: PoseSettings = PoseSettings()
    geometry: GeometrySettings = GeometrySettings()
    prior: PatchPriorSettings = PatchPriorSettings()

    @property
    def without_effect(self) -> dict[str, str]:
        """Sections and settings that the other settings make idle, each with what makes it so. A section's `without_effect` tells
        of its own."""
        idle = idle_in_sections(self)
        poses, geometry = self.poses, self.geometry
        if not (poses.refine or poses.intrinsics):
            idle |= dict.fromkeys(_all_but("poses", poses, "refine", "intrinsics"), "without poses.refine=true")
        if not geometry.is_on:
            terms = ("opacity", "frustum", "distortion", "density_decay")
            idle |= dict.fromkeys(_all_but("geometry", geometry, *terms), "without geometric terms (--geometry)")
        if not self.prior.file:
            idle |= dict.fromkeys(_all_but("prior", self.prior, "file"), "without a prior (--prior)")
        return idle | {"poses.sharp_from": "with a method that has no hash grid"}


def _all_but(section: str, settings: Any, *switches: str) -> list[str]:
    """The keys of a section's settings, without those that turn it on."""
    return [f"{section}.{field.name}" for field in fields(settings) if field.name not in switches]


@dataclass(frozen=True)
class BatchSettings(PixelSettings):
    n_samples: int = 2**16  # that rays of a step are marched through; the number of rays follows
    n_rays_most: int = 2**15
    n_samples_per_ray: int = 64  # beyond which steps are stretched, while the grid knows little

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, n_samples=SAMPLES, n_rays_most=RAYS, n_samples_per_ray=INTERVALS)


@dataclass(frozen=True)
class OptimiserSettings:
    learning_rate: float = 2e-2  # of the hash table
    network_rate: float = 2e-2  # learning rate of the networks
    decay_from: float = 0.5  # of the training, when the learning rate begins to fall
    final_share: float = 0.02  # of it that is left at the end
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-15
    mlp_decay: float = 0.0  # L2 on the networks
    table_decay: float = 0.0  # L2 on the hash table

    def __post_init__(self) -> None:
        check_ranges(
            self, learning_rate=RATE, network_rate=RATE, decay_from=SHARE_BELOW_ONE, final_share=SOME_SHARE,
            beta1=SHARE_BELOW_ONE, beta2=SHARE_BELOW_ONE, epsilon=AT_LEAST_ZERO, mlp_decay=AT_LEAST_ZERO,
            table_decay=AT_LEAST_ZERO,
        )  # fmt: skip

    @property
    def without_effect(self) -> dict[str, str]:
        return {"decay_from": "with optimiser.final_share=1"} if self.final_share == 1 else {}


@dataclass(frozen=True)
class LossSettings:
    kind: Photometric = "mse"
    opacity_entropy: float = 0.0
    spread: float = 0.0  # mip-NeRF 360's distortion
    spread_from: float = added(0.1, before=0.0)  # share of the training over which it grows: at once, fog at the cameras can stay
    # Share of the colors' variance that is explained before it acts; None: none has to be. What explains nothing yet is fog, and
    # pulled together at the cameras it stays that for good.
    spread_fit: float | None = added(0.5, before=None)
    depth: float = 0.0  # where the scene has depth

    def __post_init__(self) -> None:
        check_ranges(
            self, opacity_entropy=AT_LEAST_ZERO, spread=AT_LEAST_ZERO, spread_from=SHARE, spread_fit=SHARE_BELOW_ONE,
            depth=AT_LEAST_ZERO,
        )  # fmt: skip

    @property
    def without_effect(self) -> dict[str, str]:
        return {} if self.spread else dict.fromkeys(("spread_from", "spread_fit"), "without loss.spread")


@dataclass(frozen=True)
class GridSettings:
    """How the occupancy grid is kept up to date."""

    every: int = 16  # steps
    full_until: int = 256  # steps in which all cells are looked at
    share: float = 0.25  # of the cells, later

    def __post_init__(self) -> None:
        check_ranges(self, every=AT_LEAST_ONE, full_until=AT_LEAST_ZERO, share=SOME_SHARE)


@dataclass(frozen=True)
class AppearanceSettings:
    """An embedding of each image, for captures whose exposure or weather changes."""

    enabled: bool = False
    n_numbers: int = 8
    # Share of the rays of a step that are seen as of no image in particular, as new views are.
    dropout: float = added(0.5, before=0.0)

    def __post_init__(self) -> None:
        check_ranges(self, n_numbers=WIDTHS, dropout=SHARE)


@dataclass(frozen=True)
class BackendSettings:
    # Whether the inner loop lives on the device; auto: where torch's tensors would be copied to it at every launch, and it is
    # no GPU emulated on the processor, where torch multiplies several times as fast.
    resident: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class SamplerSettings:
    kind: Literal["occupancy", "proposal"] = "occupancy"


@dataclass(frozen=True)
class NgpProposalSettings(ProposalSettings):
    """Of proposals under the hash grid."""

    n_proposed: tuple[int, ...] = (64,)
    n_samples: int = 16
    # Of pictures, if it is more: a mean over many rays need not be exact, but here each ray is one pixel.
    n_shown: int = added(32, before=1)
    learning_rate: float = 0.1  # of proposals, which have to keep up with the field
    network_share: float = 1.0  # of the learning rate of the field's networks
    learn_every: int = added(5, before=1)  # steps: proposals, after a while; in every step at first
    least_opacity: float = 0.0  # that proposals have to see on a ray, for the field to look there at all
    chance: float = 0.1  # that it does all the same, in training
    near_fade: float = 0.0  # share of the way to the scene's middle within which the field learns less (`near_gradients`)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self, n_shown=INTERVALS, learning_rate=RATE, network_share=AT_LEAST_ZERO, learn_every=AT_LEAST_ONE,
            least_opacity=SHARE, chance=SHARE, near_fade=AT_LEAST_ZERO,
        )  # fmt: skip


@dataclass(frozen=True)
class NgpConfig(Config):
    """Of `--method ngp`: a hash grid, and an occupancy grid or a small hash grid that tells where to look."""

    batch: BatchSettings = BatchSettings()
    field: HashGridSettings = HashGridSettings()
    sampler: SamplerSettings = SamplerSettings()
    proposal: NgpProposalSettings = NgpProposalSettings()
    density: DensitySettings = DensitySettings()
    occupancy: OccupancySettings = OccupancySettings()
    grid: GridSettings = GridSettings()
    culling: Culling = Culling()
    optimiser: OptimiserSettings = OptimiserSettings()
    loss: LossSettings = LossSettings()
    appearance: AppearanceSettings = AppearanceSettings()
    backend: BackendSettings = BackendSettings()

    @property
    def without_effect(self) -> dict[str, str]:
        """Besides: sections that the chosen sampler does not look at, and embeddings that there are none of."""
        of_grid = ("occupancy", "grid", "batch.n_samples_per_ray", "backend.resident")
        of_proposals = ("proposal", "density")
        others = of_grid if self.sampler.kind == "proposal" else of_proposals
        idle = super().without_effect | dict.fromkeys(others, "with the chosen sampler (sampler.kind)")
        idle["field.n_appearance"] = "here: appearance.enabled and appearance.n_numbers say it"
        del idle["poses.sharp_from"]
        if not self.poses.refine:
            idle["poses.sharp_from"] = "without poses.refine=true"
        if not self.appearance.enabled:
            idle |= dict.fromkeys(_all_but("appearance", self.appearance, "enabled"), "without appearance.enabled=true")
        return idle
