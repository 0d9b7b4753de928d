"""Settings of `--method mipnerf360`, and its presets.

| preset | is |
|---|---|
| 360 | that of the published code (Barron et al. 2022) |
| small | smaller networks, 6 directions and one proposal: useful after ten minutes on two cores |
"""

from dataclasses import dataclass, replace

import torch

from taichi_nerf.fields.contracted_encoding import GaussianEncodingSettings
from taichi_nerf.fields.mip_nerf_360_field import ProposalNetworkSettings, WideNetworkSettings
from taichi_nerf.fields.mlp import best_precision
from taichi_nerf.fields.ranges import AT_LEAST_ZERO, check_ranges
from taichi_nerf.losses import Photometric
from taichi_nerf.samplers.proposal_sampler import ProposalSettings
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import Config, RunSettings, SceneSettings
from taichi_nerf.training.nerf_config import DEFAULT, LogLinearSettings, RayBatchSettings


@dataclass(frozen=True)
class MipNerf360Settings:
    photometric: Photometric = "charbonnier"
    distortion: float = 0.01  # how much weights that lie apart cost

    def __post_init__(self) -> None:
        check_ranges(self, distortion=AT_LEAST_ZERO)


@dataclass(frozen=True)
class MipNerf360Config(Config):
    """Of `--method mipnerf360`."""

    batch: RayBatchSettings = RayBatchSettings(n_rays=2**14)
    mipnerf360: MipNerf360Settings = MipNerf360Settings()
    proposal: ProposalSettings = ProposalSettings((64, 64), 32, anneal=1.0, padding=0.0, blur=True)
    encoding: GaussianEncodingSettings = GaussianEncodingSettings()
    density: ProposalNetworkSettings = ProposalNetworkSettings()
    field: WideNetworkSettings = WideNetworkSettings()
    optimiser: LogLinearSettings = LogLinearSettings()


PRESETS = (DEFAULT, "360", "small")
STEPS = {"360": 250_000, "small": 6_000}


def choose(
    scene: SceneData, settings: SceneSettings, run: RunSettings, device: torch.device
) -> tuple[MipNerf360Config, list[str]]:
    """The configuration, and what was decided."""
    name = run.preset if run.preset != DEFAULT else "small" if device.type == "cpu" else "360"
    run = run.or_steps(STEPS[name])
    bounded = not scene.bounds.unbounded
    batch = RayBatchSettings(n_rays=2**14, background=run.background, masks="alpha" if bounded else "ignore")
    config = MipNerf360Config(settings, replace(run, preset=name), batch)
    if name == "360":
        rate = LogLinearSettings(2e-3, 2e-5, delay=512 / 250_000, delay_factor=0.01, epsilon=1e-6, largest_gradient=1e-3)
        config = replace(config, optimiser=rate, proposal=replace(config.proposal, even_until=0.0))
    else:
        config = replace(
            config,
            batch=replace(batch, n_rays=1024, background="random" if bounded else run.background),
            # |d| is content with the most frequent color, and long finds nothing else: squares are not.
            mipnerf360=MipNerf360Settings("mse"),
            proposal=replace(config.proposal, n_proposed=(48,), n_samples=32, anneal=0.1),
            encoding=GaussianEncodingSettings(n_frequencies=8, n_directions=6),
            density=ProposalNetworkSettings(n_layers=2, n_hidden=64),
            field=WideNetworkSettings(n_layers=5, n_hidden=128, skip_after=2, n_feature=128, n_view_hidden=64),
            optimiser=LogLinearSettings(2e-3, 2e-4),
        )
    precision = best_precision(device)
    config = replace(
        config, field=replace(config.field, precision=precision), density=replace(config.density, precision=precision)
    )
    field, density, proposal = config.field, config.density, config.proposal
    notes = [
        f"preset {name}",
        f"networks: {field.n_layers} layers of {field.n_hidden}, and {density.n_layers} of {density.n_hidden} that propose; "
        f"{precision}; {config.batch.n_rays} rays a step",
        f"intervals on a ray: {proposal.n_samples}, proposed by {' and '.join(map(str, proposal.n_proposed))}, "
        + ("the scene's box" if bounded else "even as far as the cameras are from the middle, and in 1 / t beyond"),
    ]
    if scene.weights is not None:
        notes.append("pixels weigh as the scene says")
    return config, notes
