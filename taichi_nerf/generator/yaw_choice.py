"""Which direction turns the object: the one that moves the most pixels sideways for the least change of what they show.

Half a standard deviation to each side of a code (along means less) gives two images. Optical flow in windows (Lucas and Kanade
1981) explains what it can of their difference by motion; the sideways motion is the parallax, and what no motion explains is the
drift of identity.

    d ≈ u I_x + v I_y in every window,    parallax = |mean of u|, in pixels,    drift = RMS of d − u I_x − v I_y
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from taichi_nerf.generator.directions import Directions, moved
from taichi_nerf.generator.stylegan2.generator import Generator, latents_of_seeds, smaller
from taichi_nerf.report import Report, silent

WINDOW = 9  # pixels a side, of images of SIZE
SIZE = 64
NOISE = 1e-3  # variance of pixel differences that is taken as nothing
STEP, STEP_ALONG_MEANS = 0.5, 0.2  # standard deviations to each side; along means one is that of the label, and turns farther
LEAST = 0.25  # of the largest parallax: what turns less is not considered, however pure it is
FIRST_SEED = 900_000


class Candidate(NamedTuple):
    """A component in a range of layers, and what an edit by one standard deviation does."""

    component: int
    layers: tuple[int, int]
    sign: float  # that moves the near side to the right
    parallax: float  # pixels of SIZE
    drift: float  # of values from −1 to 1

    @property
    def score(self) -> float:
        return self.parallax / (self.drift + 1e-3)


def flow(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Motion to the right and down [n, h, w] of images [n, 3, h, w], and the difference that it leaves [n, 3, h, w].

    A point that moves by (u, v) makes after − before = −u I_x − v I_y.
    """
    middle, change = (before + after) / 2, after - before
    right = torch.zeros_like(middle)
    down = torch.zeros_like(middle)
    right[..., 1:-1] = (middle[..., 2:] - middle[..., :-2]) / 2
    down[..., 1:-1, :] = (middle[..., 2:, :] - middle[..., :-2, :]) / 2

    def windowed(values: Tensor) -> Tensor:
        return avg_pool2d(values.sum(1, keepdim=True), WINDOW, 1, WINDOW // 2, count_include_pad=False)

    xx, yy, xy = windowed(right * right) + NOISE, windowed(down * down) + NOISE, windowed(right * down)
    xt, yt = windowed(right * change), windowed(down * change)
    determinant = xx * yy - xy * xy
    u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    return u[:, 0], v[:, 0], change + u * right + v * down


@torch.no_grad()
def choose_yaw(
    generator: Generator,
    directions: Directions,
    n_subjects: int = 24,
    n_components: int = 12,
    ranges: list[tuple[int, int]] | None = None,
    also: int | None = None,  # a component that is measured as well, should it be none of the first `n_components`
    report: Report = silent,
) -> tuple[Directions, list[Candidate]]:
    """The directions with the yaw chosen, and all candidates, the best first."""
    n_layers = generator.settings.n_layers
    ranges = ranges or sorted({(0, max(2, n_layers // 3)), (0, max(2, n_layers // 2)), (0, n_layers)})
    device = generator.mapping.w_avg.device
    seeds = list(range(FIRST_SEED, FIRST_SEED + n_subjects))
    codes = generator.mapping(latents_of_seeds(seeds, generator.settings.z_dim).to(device), directions.truncation)
    numbers = [c for c in range(len(directions.components)) if c < n_components or c == also]
    tried = [(c, layers) for c in numbers for layers in ranges]
    step = STEP if directions.normals is None else STEP_ALONG_MEANS
    candidates = []
    for done, (component, layers) in enumerate(tried, 1):
        direction = directions.components[component] * directions.deviations[component]
        pair = [generator.synthesis(moved(codes, direction, torch.full((n_subjects,), s), layers)) for s in (-step, step)]
        u, _, left = flow(*(smaller(images.clamp(-1, 1), min(SIZE, images.shape[-1])) for images in pair))
        side = float(u.mean((1, 2)).median())
        parallax, drift = float(u.mean((1, 2)).abs().mean()), float(left.square().mean().sqrt())
        agreement = abs(side) / (parallax + 1e-9)  # a direction that turns some left and others right turns none
        candidates.append(Candidate(component, layers, 1.0 if side >= 0 else -1.0, parallax * min(1.0, agreement), drift))
        report(done / len(tried), f"component {component}, layers {layers[0]} to {layers[1]}")
    most = max(candidate.parallax for candidate in candidates)
    candidates.sort(key=lambda c: (c.parallax >= LEAST * most, c.score), reverse=True)
    best = candidates[0]
    return replace(directions, yaw_component=best.component, yaw_sign=best.sign, yaw_layers=best.layers), candidates
