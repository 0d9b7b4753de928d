"""`taichi-nerf generator`: from a 2D GAN to view-consistent images, one command a stage."""

import click

from taichi_nerf.apps.command import Group
from taichi_nerf.apps.generator_convert import convert
from taichi_nerf.apps.generator_depth_pose import depth_pose
from taichi_nerf.apps.generator_directions import directions
from taichi_nerf.apps.generator_evaluate import evaluate
from taichi_nerf.apps.generator_refine import refine
from taichi_nerf.apps.generator_render import render
from taichi_nerf.apps.generator_train import train


@click.group(cls=Group)
def generator() -> None:
    """From a 2D GAN to images of one object from many sides. Each command takes --debug.

    A MODEL is a folder that the stages fill, in this order: train, directions, depth-pose, refine.

    \b
    Example:
      taichi-nerf generator render --model models/heads --seed 3 --out turn.png
    """


for command in (train, directions, depth_pose, refine, evaluate, render, convert):
    generator.add_command(command)
