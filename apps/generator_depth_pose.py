"""`taichi-nerf generator depth-pose`: depth and relative pose from turning images alone."""

import click

from taichi_nerf.apps.command import Command, arch_option, seed_option
from taichi_nerf.apps.generator_options import ended, hold_stages, model_option, start_backend
from taichi_nerf.quoting import quote


@click.command("depth-pose", cls=Command)
@model_option
@click.option("--steps", type=click.IntRange(min=1), default=1500, show_default=True)
@click.option("--batch", type=click.IntRange(min=2), default=12, show_default=True)
@click.option(
    "--width", type=click.IntRange(min=4), default=16, show_default=True, help="Channels of the first layer; 64 is published."
)
@click.option("--subjects", type=click.IntRange(min=1), default=200, show_default=True, help="Objects that are turned.")
@click.option("--reach", type=click.FloatRange(min=0.1), default=3.0, show_default=True, help="How far, in standard deviations.")
@click.option("--fov", type=click.FloatRange(1, 150), default=25.2, show_default=True, help="Field of view in degrees.")
@click.option("--learn-focal", is_flag=True, help="Learn the focal length, starting from --fov.")
@click.option("--nearest", type=click.FloatRange(min=0.01), default=0.7, show_default=True, help="Depths are between these,")
@click.option("--farthest", type=click.FloatRange(min=0.02), default=1.4, show_default=True, help="in distances of the camera.")
@click.option("--smoothness", type=click.FloatRange(min=0), default=1e-3, show_default=True, help="Weight of smooth depths.")
@seed_option()
@arch_option
def depth_pose(model: str, steps: int, batch: int, width: int, subjects: int, reach: float, fov: float, learn_focal: bool,
               nearest: float, farthest: float, smoothness: float, seed: int, arch: str) -> None:  # fmt: skip
    """Learn MODEL's depth and pose without labels, from how neighbours in a turn look when warped into each other.

    \b
    Example:
      taichi-nerf generator depth-pose --model models/heads
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.generator.depth_pose.model import DepthPoseSettings
    from taichi_nerf.generator.depth_pose.training import DepthPoseTraining
    from taichi_nerf.generator.model_folder import ModelFolder
    from taichi_nerf.generator.stages import make_depth_pose
    from taichi_nerf.training.interrupt import StopSignals

    folder, device = ModelFolder(model).may_change(), start_backend(arch).torch_device
    size = max(64, folder.load_generator().settings.resolution // 32 * 32)
    hold_stages(folder)
    settings = DepthPoseSettings(width, min(size, 256), nearest, farthest, fov, learn_focal)
    training = DepthPoseTraining(steps, batch, n_subjects=subjects, smoothness=smoothness)
    with progress() as report, StopSignals() as stop:
        told = make_depth_pose(folder, settings, training, device, seed, reach, report, lambda: stop.requested)
    click.echo(f"{told['steps']} steps, loss {told['loss']:.4f}, {100 * told['pixels_in_use']:.0f} % of pixels in use")
    click.echo(f"look at {folder.pictures / 'depth.png'}")
    ended(stop)
    click.echo(f"next:  taichi-nerf generator refine --model {quote(model)}")
