"""`taichi-nerf`: the group that holds every command."""

from taichi_nerf.apps.early import interrupts_leave

with interrupts_leave():
    import click

    from taichi_nerf import __version__
    from taichi_nerf.apps.backends import backends
    from taichi_nerf.apps.benchmark import benchmark
    from taichi_nerf.apps.command import Group
    from taichi_nerf.apps.demo import demo
    from taichi_nerf.apps.evaluate import evaluate
    from taichi_nerf.apps.export import export
    from taichi_nerf.apps.generator import generator
    from taichi_nerf.apps.photos import photos
    from taichi_nerf.apps.pixelnerf import pixelnerf
    from taichi_nerf.apps.prior import prior
    from taichi_nerf.apps.render import render
    from taichi_nerf.apps.scene import scene
    from taichi_nerf.apps.train import train
    from taichi_nerf.apps.view import view


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="taichi-nerf")
def main() -> None:
    """Train, render and hack neural radiance fields on any GPU, or on none.

    Start with `taichi-nerf demo`; `taichi-nerf backends` tells what this machine can compute with.
    """


for command in (demo, train, evaluate, render, export, view, scene, photos, prior, pixelnerf, generator, backends, benchmark):
    main.add_command(command)
