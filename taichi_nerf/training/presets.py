"""Settings of `--method ngp` fitted to a scene and a machine. Every choice is told in words.

What they are fitted by: the footprint of a pixel where the scene is (how fine a picture can show anything), how many pixels there
are, and whether there is something behind the box; and by how long the training will be: a small table is visited faster and
filled sooner, a large one holds more in the end. A preset says how long that is where no budget does.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from taichi_nerf.choices import Background
from taichi_nerf.fields.hash_grid_field import HashGridSettings
from taichi_nerf.fields.mlp import best_precision
from taichi_nerf.samplers.occupancy_grid_sampler import OccupancySettings
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.config import (
    BatchSettings,
    Config,
    LossSettings,
    NgpConfig,
    NgpProposalSettings,
    OptimiserSettings,
    RunSettings,
    SceneSettings,
)
from taichi_nerf.training.resident_model import is_resident

STEPS = {"fast": 2_000, "default": 10_000, "quality": 30_000}  # where neither steps nor time are given
SHORT_STEPS, SHORT_SECONDS = 4_000, 150.0  # up to which a training is short; on a processor

# A row of the table is seen by few rays of a step, and soon by others: what Adam remembers for long is of the past. An object
# bears it quicker still, and with slower networks, which around a scene that goes on learn nothing but fog (12.8 dB, not 18.0).
OF_OBJECTS = OptimiserSettings(learning_rate=0.05, network_rate=0.01, beta1=0.8, beta2=0.95)
OF_SURROUNDINGS = OptimiserSettings(learning_rate=0.03, beta2=0.95)

STEEPEST = 0.5  # growth of steps with distance, however much a pixel covers
SPREAD = 0.03  # loss of spread in what surrounds its cameras: three times as much is worse there, a tenth does nothing
NEAR_FADE = 0.7  # under proposals: with a quarter, or none, unbounded scenes end as fog at the cameras
SAMPLES_PROPOSED = 2**16  # samples of a step under proposals


def choose(scene: SceneData, settings: SceneSettings, run: RunSettings, device: torch.device) -> tuple[NgpConfig, list[str]]:
    """The configuration, and what was decided."""
    config = NgpConfig(settings, run.or_steps(STEPS[run.preset]))
    footprint, on_gpu = pixel_footprint(scene), device.type == "cuda" or is_resident(config)
    field, occupancy = fitted(scene, config.run, device, footprint, on_gpu)
    bounded = not scene.bounds.unbounded
    batch = BatchSettings(
        # More steps are worth more than larger ones, until rays take so many samples that a batch has too few rays.
        n_samples=2**18 if on_gpu else 3 * 2**14 if bounded else 2**16,
        n_rays_most=5000 if bounded and not on_gpu else 2**15,
        n_samples_per_ray=1024 if bounded else 64,  # an object's grid empties within a second, that of a room does not
        masks="alpha" if bounded else "ignore",
        importance=0.5 if bounded else 0.0,  # much of a picture of an object is empty, and soon known
    )
    # What a camera sees from within fills every ray, and its weights lie apart until they are pulled together.
    loss = LossSettings("mse" if bounded else "huber", spread=0.0 if scene.is_object else SPREAD)
    # Past an object most rays see nothing, and where something is soon stays so; around cameras that stand within, what is
    # everywhere has to be looked at again and again, or fog at the cameras hides it for good. Networks that learn fast fill an
    # object's hollows in the first steps, and behind what is opaque nothing is proposed; what surrounds is not learned without.
    of_objects = NgpProposalSettings(padding=0.002, least_opacity=0.01, network_share=0.25)
    proposal = of_objects if scene.is_object else NgpProposalSettings(near_fade=NEAR_FADE)
    optimiser = OF_OBJECTS if bounded else OF_SURROUNDINGS
    config = replace(config, field=field, occupancy=occupancy, proposal=proposal, batch=batch, loss=loss, optimiser=optimiser)
    notes = [
        f"preset {run.preset}: {budget_of(config)}",
        f"hash grid: {field.n_levels} levels up to {field.max_resolution} cells an axis, 2^{field.log2_table_size} rows of "
        f"{field.n_features} ({n_rows(scene)} pixels of training)",
        f"steps along rays: {occupancy.step_size:.4g} scene units"
        + (f", growing to {occupancy.cone_angle:.4g} of the distance" if occupancy.cone_angle else "")
        + f" (a pixel covers {footprint:.4g}); occupancy grid of {occupancy.resolution}^3 cells",
        f"networks multiply {field.precision}, {batch.n_samples} samples a step",
    ]
    if scene.masks is not None:
        notes.append("masks: nothing is outside of them" if batch.masks == "alpha" else "masks: pixels outside are ignored")
    return config, notes


def under_proposals(config: NgpConfig) -> NgpConfig:
    """With what suits proposals where they take the occupancy grid's place.

    They take more samples on a ray of an object than its grid does in the end; as many rays want a larger batch. Their rates were
    chosen with Adam's usual ones.
    """
    batch = config.batch
    return replace(config, batch=replace(batch, n_samples=max(batch.n_samples, SAMPLES_PROPOSED)), optimiser=OptimiserSettings())


def usual_background(scene: SceneData) -> Background:
    """Black for photographs that masks cut out, as IDR, NeuS and what came after show and measure DTU; white for renderings.

    It matters inside of the masks too: a pixel of the outline is partly background, of the photograph in the truth.
    """
    return "black" if scene.masks is not None and not scene.bounds.unbounded else "white"


def budget_of(config: Config) -> str:
    parts = [f"{config.run.steps} steps"] if config.run.steps else []
    parts += [f"{config.run.time_budget:g} s"] if config.run.time_budget else []
    return " or ".join(parts)


def fitted(
    scene: SceneData, run: RunSettings, device: torch.device, footprint: float, on_gpu: bool
) -> tuple[HashGridSettings, OccupancySettings]:
    """Field and sampler for what the pictures can show."""
    unbounded = scene.bounds.unbounded
    extent = 4.0 if unbounded else 2.0  # of the grid's cube, in scene units near its middle
    finest = extent / footprint  # cells an axis, one a pixel
    max_resolution = int(min(max(2 ** round(math.log2(finest)), 128), 4096))
    pixels_per_row = 5 if on_gpu or not is_short(run) else 6  # logarithms of 2
    least = {"fast": 14, "default": 15, "quality": 16}[run.preset]
    log2_size = int(min(max(round(math.log2(n_rows(scene))) - pixels_per_row, least), 19))
    field = HashGridSettings(
        n_levels=12 if max_resolution <= 512 else 14,
        max_resolution=max_resolution,
        log2_table_size=log2_size,
        harmonics=3 if run.preset == "fast" else 4,
        precision=best_precision(device),
    )
    # Shorter steps than a quarter of a cell of the grid cost rays, which were worth more.
    occupancy = OccupancySettings(resolution=64, step_size=max(footprint, 2 / 256), decay=0.7)
    if unbounded:
        occupancy = replace(occupancy, cone_angle=min(4 * pixel_angle(scene), STEEPEST), least_alpha=0.03)
    return field, occupancy


def is_short(run: RunSettings) -> bool:
    by_time = run.time_budget is not None and run.time_budget <= SHORT_SECONDS
    return by_time or (run.steps is not None and run.steps <= SHORT_STEPS)


def n_rows(scene: SceneData) -> int:
    """Pixels that training sees."""
    return int(scene.cameras.sizes[scene.splits["train"]].prod(-1).sum())


def pixel_angle(scene: SceneData) -> float:
    """Width of a pixel at distance one."""
    return float(np.median(1 / scene.cameras.intrinsics[:, 0]))


def pixel_footprint(scene: SceneData) -> float:
    """Width of a pixel, in scene units, at the distance of the scene's middle."""
    distances = np.linalg.norm(scene.cameras.centers, axis=-1)
    return float(np.median(np.maximum(distances, 0.1) / scene.cameras.intrinsics[:, 0]))
