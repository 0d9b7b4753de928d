"""A training at half the resolution goes on at the full one: what was learned is kept, the new blocks begin as an enlargement.

The skip connections of colors make it simple (compare Karras et al. 2018, whose layers were faded in): the new block's colors
begin as zero, so the generator begins as its former images, enlarged. The discriminator's new blocks begin at random.
"""

import torch

from taichi_nerf.generator.stylegan2.generator import ToColor
from taichi_nerf.generator.stylegan2.training import GanTraining


@torch.no_grad()
def take_over(larger: GanTraining, smaller: GanTraining) -> None:
    """Give `larger` what `smaller`, of half its resolution, has learned; the optimisers' moments begin anew."""
    block = f"b{larger.networks.resolution}"
    for name in ("generator", "average", "discriminator"):
        into, of = getattr(larger, name), getattr(smaller, name)
        known = {key: value for key, value in of.state_dict().items() if ".fromrgb." not in key}
        into.load_state_dict({**into.state_dict(), **known})
        if name != "discriminator":
            color: ToColor = getattr(into.synthesis, block).torgb
            color.weight.zero_()
    larger.average.load_state_dict({**larger.generator.state_dict(), **smaller.average.state_dict()})
    larger.strength.p, larger.path_mean = smaller.strength.p, smaller.path_mean
    larger.n_steps, larger.n_images = smaller.n_steps, smaller.n_images
    larger.random.set_state(smaller.random.get_state())
