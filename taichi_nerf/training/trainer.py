"""Training: draw pixels, render their rays, compare, step.

    trainer = Trainer(config, scene, device)
    while not trainer.is_done:
        progress = trainer.step()
    save_checkpoint(file, trainer.state_dict(), {})

The number of rays of a step follows the number of samples that the last one took, which keeps the work of a step constant.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taichi_nerf import losses
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import RenderedBatch
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.budget import Budget, Stopwatch
from taichi_nerf.training.config import Config
from taichi_nerf.training.distributed import World
from taichi_nerf.training.error_map import ErrorMap
from taichi_nerf.training.guard import Guard
from taichi_nerf.training.model import Model
from taichi_nerf.training.schedules import late_decay
from taichi_nerf.training.targets import Batch, Targets

LONGEST_STRETCH = 5.0  # of the steps along rays
FEWEST_RAYS, FIRST_RAYS = 256, 512  # few at first, when every cell is still taken for occupied


@dataclass(frozen=True)
class Step:
    """How a step went."""

    step: int
    seconds: float  # of training so far
    loss: float
    psnr: float  # of the batch
    n_rays: int
    n_samples: int


class Trainer:
    def __init__(self, config: Config, scene: SceneData, device: torch.device, world: World = World()):
        self.config, self.scene, self.device, self.world = config, scene, device, world
        torch.manual_seed(config.run.seed)
        self.model = Model(config, scene, device)
        self.views = [int(view) for view in scene.splits["train"]]
        self.model.leave_out_unseen(scene, self.views)
        self.targets = Targets.of(scene, self.views, config.batch.masks == "alpha", config.loss.depth > 0, device)
        self.errors = ErrorMap(self.targets.colors) if config.batch.importance else None
        self.optimiser = _optimiser(config, self.model)
        self.generator = torch.Generator().manual_seed(config.run.seed + 7919 * world.rank)
        self.grid_generator = torch.Generator().manual_seed(config.run.seed)  # the same on all ranks: so are their grids
        self.budget = Budget(config.run.steps, config.run.time_budget)
        self.stopwatch = Stopwatch()
        self.guard = Guard()
        self.n_steps, self.n_rays = 0, FIRST_RAYS

    @property
    def is_done(self) -> bool:
        return self.budget.done(self.n_steps, self.stopwatch.seconds)

    @property
    def progress(self) -> float:
        return self.budget.progress(self.n_steps, self.stopwatch.seconds)

    def step(self) -> Step:
        """One step of the optimiser, timed."""
        with self.stopwatch.running():
            self._follow_schedule()
            if self.n_steps % self.config.grid.every == 0:
                self._update_grid()
            n_rays = self.n_rays
            batch = self.draw(n_rays)
            loss, error, rendered = self.compare(batch)
            self.optimiser.zero_grad()
            loss.backward()
            self.world.average_gradients(self.model.parameters())
            n_samples, value = rendered.n_marched, float(loss.detach())
            if self.guard.accepts(value, self.model):
                self.optimiser.step()
            self.guard.watch(value, self.model, self.optimiser)
            if self.model.rig.refine_poses and self.n_steps % 100 == 99:
                self.model.rig.settle(torch.tensor(self.views, device=self.device))
            self.n_rays = self._rays_of_next(n_rays, n_samples)
            self.n_steps += 1
        return Step(self.n_steps, self.stopwatch.seconds, value, -10 * math.log10(max(error, 1e-10)), n_rays, n_samples)

    def draw(self, n: int) -> Batch:
        """Random pixels of the training views."""
        if self.errors is not None:
            return self.targets.at(*self.errors.draw(n, self.config.batch.importance, self.generator))
        return self.targets.at(torch.randint(len(self.targets), (n,), generator=self.generator).to(self.device))

    def compare(self, batch: Batch) -> tuple[Tensor, float, RenderedBatch]:
        """The loss of a batch, its mean squared error, and its render.

        Each ray is composited over its own random color, picture and render alike: nothing can be explained by painting the
        background, and what pictures without alpha show has to be opaque.
        """
        config, n = self.config, len(batch.views)
        background = self._background(n)
        truth = batch.color if batch.alpha is None else torch.lerp(background, batch.color, batch.alpha[:, None])
        rays = self.model.rig.rays(batch.positions, batch.views)
        jitter = torch.rand(n, generator=self.generator).to(self.device)
        rendered = self.model.render(rays, background, jitter=jitter, draws=self.generator, image_ids=batch.views)
        out, samples = rendered.rendered, rendered.samples
        loss = losses.photometric(config.loss.kind, out.color, truth, batch.weight)
        squared = (out.color.detach() - truth).square().mean(-1)
        if self.errors is not None:
            self.errors.learn(batch.rows, squared)
        if config.loss.opacity_entropy:
            loss = loss + config.loss.opacity_entropy * losses.opacity_entropy(out.opacity)
        if config.loss.spread:
            loss = loss + config.loss.spread * losses.spread(out.weights, samples)
        if config.loss.depth and batch.depth is not None:
            truth_depth = self._along_rays(batch, rays)
            loss = loss + config.loss.depth * losses.depth_error(out.depth, out.opacity, truth_depth, batch.depth > 0)
        counted = squared if batch.weight is None else squared * batch.weight
        return loss, float(counted.mean()), rendered

    def warm_up(self) -> None:
        """Compile every kernel, on a copy of the state that is thrown away: training time is without compiling."""
        before = self.state_dict(copied=True)
        for _ in range(2):
            self.step()
        self.load_state_dict(before)

    def state_dict(self, copied: bool = False) -> dict[str, Any]:
        """Everything that training goes on from; `copied`: that further steps leave alone."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "errors": self.errors.state_dict() if self.errors is not None else {},
            "generators": [self.generator.get_state(), self.grid_generator.get_state()],
            "guard": self.guard.state_dict(),
            "seconds": self.stopwatch.seconds,
            "n_steps": self.n_steps,
            "n_rays": self.n_rays,
        }
        return deepcopy(state) if copied else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.errors is not None:
            self.errors.load_state_dict(state["errors"])
        for generator, saved in zip((self.generator, self.grid_generator), state["generators"], strict=True):
            generator.set_state(saved)
        self.guard.load_state_dict(state["guard"])
        self.stopwatch = Stopwatch(state["seconds"])
        self.n_steps, self.n_rays = state["n_steps"], state["n_rays"]

    def _follow_schedule(self) -> None:
        config, progress = self.config.optimiser, self.progress
        share = late_decay(progress, config.decay_from, config.final_share)
        for group in self.optimiser.param_groups:
            group["lr"] = group["first_lr"] * share
            if group["name"] == "poses" and self.n_steps < self.config.poses.from_step:
                group["lr"] = 0.0

    def _update_grid(self) -> None:
        config = self.config.grid
        share = 1.0 if self.n_steps < config.full_until else config.share
        self.model.sampler.update(lambda at: self.model.field.glance(at).density, share, self.grid_generator)

    def _background(self, n: int) -> Tensor:
        kind = self.config.batch.background
        if kind == "random":
            return torch.rand(n, 3, generator=self.generator).to(self.device)
        return torch.full((n, 3), float(kind == "white"), device=self.device)

    def _rays_of_next(self, n_rays: int, n_samples: int) -> int:
        wanted = n_rays * self.config.batch.n_samples / self.world.size / max(n_samples, 1)
        sampler, most = self.model.sampler, self.config.batch.n_samples_per_ray
        sampler.stretch = min(max(sampler.stretch * n_samples / n_rays / most, 1.0), LONGEST_STRETCH)
        return int(min(max(wanted, FEWEST_RAYS), 2 * n_rays, self.config.batch.n_rays_most))

    def _along_rays(self, batch: Batch, rays: Rays) -> Tensor:
        """Known depths as distances along rays."""
        assert batch.depth is not None
        assert self.scene.depths is not None
        if self.scene.depths.kind == "ray":
            return batch.depth
        forward = self.model.rig.poses()[batch.views.long(), :, 2]
        return batch.depth / (forward * rays.directions).sum(-1).clamp_min(1e-3).detach()


def _optimiser(config: Config, model: Model) -> torch.optim.Optimizer:
    """Adam. The groups' first learning rates are what the schedule scales."""
    rate, network_rate, field = config.optimiser.learning_rate, config.optimiser.network_rate, model.field
    networks = [*field.density_mlp.parameters(), *field.color_mlp.parameters()]
    groups = [
        {"name": "table", "params": [field.table], "first_lr": rate, "weight_decay": config.optimiser.table_decay},
        {"name": "networks", "params": networks, "first_lr": network_rate, "weight_decay": config.optimiser.mlp_decay},
    ]
    if field.appearance.numel():
        groups.append({"name": "appearance", "params": [field.appearance], "first_lr": rate})
    if model.rig.is_refined:
        groups.append({"name": "poses", "params": list(model.rig.parameters()), "first_lr": config.poses.learning_rate})
    return torch.optim.Adam(groups, lr=rate, betas=(0.9, config.optimiser.beta2), eps=config.optimiser.epsilon, fused=True)
