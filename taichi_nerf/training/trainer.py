"""Training: draw pixels, render their rays, compare, step.

    trainer = Trainer(config, scene, device)
    while not trainer.is_done:
        progress = trainer.step()
    save_checkpoint(file, trainer.state_dict(), {})

What differs between methods is behind `model.Model`. A model of your own, and terms of your own that are added to the loss:
`Trainer(config, scene, device, model=mine, terms=[mine])`; examples/my_field.py and examples/my_loss.py.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from functools import cache, partial
from typing import Any, NamedTuple, SupportsInt

import torch
from torch import Tensor

from taichi_nerf import random_numbers
from taichi_nerf.later import Later
from taichi_nerf.rays import Rays
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.budget import Budget, Course, Stopwatch
from taichi_nerf.training.config import Config
from taichi_nerf.training.distributed import World
from taichi_nerf.training.error_map import ErrorMap
from taichi_nerf.training.guard import Guard, has_finite_gradients
from taichi_nerf.training.methods import make_model
from taichi_nerf.training.model import Model, Shown
from taichi_nerf.training.pixel_batches import draw_rows
from taichi_nerf.training.room import expect_room, expect_room_for_tables
from taichi_nerf.training.schedules import log_linear
from taichi_nerf.training.step import Step, Told
from taichi_nerf.training.targets import Batch, Targets
from taichi_nerf.training.terms import Moment, Term, scalar_of
from taichi_nerf.training.terms_of import terms_of


class Difference(NamedTuple):
    """Between a batch and what the model makes of it."""

    loss: Tensor  # []
    error: Tensor  # [] mean squared, of colors
    n_samples: SupportsInt
    is_whole: Tensor | None  # [] bool: whether the model left nothing out for want of room; None: it did not


class Given(NamedTuple):
    """A step that was given to the device, which tells later how it went."""

    n_rays: int
    n_samples: SupportsInt
    verdict: Later  # loss, error, whether it was made, whether anything had been left out


class Trainer(Course):
    """A GPU is given a step before the host knows how the last one went.

    So no step waits: the device itself leaves out one whose loss or gradients are not finite. At the beginning of a step the host
    learns how many samples the last one had, while its gradients are still on their way, and how the one before that went.
    """

    def __init__(
        self,
        config: Config,
        scene: SceneData,
        device: torch.device | str,
        world: World = World(),
        *,
        model: Model | None = None,  # None: the configured method's
        terms: Sequence[Term] = (),  # of the loss, besides those that are configured
        report: Report = silent,  # while pictures are read
    ):
        device = torch.device(device)
        self.config, self.scene, self.device, self.world = config, scene, device, world
        torch.manual_seed(config.run.seed)
        if model is None:
            expect_room_for_tables(config, device)
        self.model = make_model(config, scene, device) if model is None else model.to(device)
        self.views = [int(view) for view in scene.splits["train"]]
        self.model.prepare(scene, self.views)
        expect_room(scene, self.views, self.model.needs_depth, config.scene.downscale)
        self.targets = Targets.of(scene, self.views, config.batch.masks == "alpha", self.model.needs_depth, device, report)
        self.terms = [*terms_of(config, scene, self.views, device), *terms]
        self.model.tells_samples = config.geometry.is_on or bool(terms)
        self.errors = ErrorMap(self.targets.colors) if config.batch.importance else None
        self.optimiser = self._optimiser()
        self.generator = torch.Generator().manual_seed(world.own_seed(config.run.seed))
        self.grid_generator = torch.Generator().manual_seed(config.run.seed)  # the same on all ranks: so are their grids
        self.budget = Budget(config.run.steps, config.run.time_budget)
        self.stopwatch = Stopwatch()
        self.guard = Guard()
        self.n_steps, self.n_rays = 0, -(-self.model.first_n_rays // world.size)
        # Where the optimiser can be told on the device that a step is none, as GradScaler does. Ranks wait for each other.
        can_leave_out = getattr(self.optimiser, "_step_supports_amp_scaling", False)
        self._runs_ahead = device.type == "cuda" and world.size == 1 and can_leave_out
        self._last: Given | None = None  # whose samples do not count yet
        self._given: list[Given] = []  # of which the guard was not told yet

    def step(self) -> Step:
        with self.stopwatch.running():
            self._learn_pace()
            self._tell_guard(but=1)
            self._follow_schedule()
            self.model.before_step(self.n_steps, self.progress, self.grid_generator)
            n_rays = self.n_rays
            found = self.compare(self.draw(n_rays))
            self.optimiser.zero_grad()
            found.loss.backward()
            self.world.average_gradients(self.model.parameters())
            verdict = self._verdict(found)
            given = self._last = Given(n_rays, found.n_samples, Later(verdict))
            self._given.append(given)
            if self._runs_ahead:
                self.optimiser.found_inf = (verdict[2] < 1).float()  # type: ignore[attr-defined]
                self.optimiser.step()
            else:
                if given.verdict.read()[2]:
                    self.optimiser.step()
                self._catch_up()
            self.n_steps += 1
        if self.model.rig.refine_poses and (self.n_steps % 100 == 0 or self.is_done):
            self.model.rig.carry_along(torch.tensor(self.views, device=self.device))
        return Step(self.n_steps, self.stopwatch.seconds, n_rays, cache(partial(self._tell, given)))

    def draw(self, n: int) -> Batch:
        """Random pixels of the training views."""
        config = self.config.batch
        if self.errors is not None:
            return self.targets.at(*self.errors.draw(n, config.importance, self.generator))
        share = config.crop_share if self.n_steps < config.crop_steps else 1.0
        rows = draw_rows(self.targets.colors, n, self.generator, config.one_view, share)
        return self.targets.at(random_numbers.sent(rows, self.device))

    def compare(self, batch: Batch) -> Difference:
        """Render a batch.

        Each ray is composited over its own random color, picture and render alike: nothing can be explained by painting the
        background, and what pictures without alpha show has to be opaque.
        """
        background = self._background(len(batch.views))
        truth = batch.color if batch.alpha is None else torch.lerp(background, batch.color, batch.alpha[:, None])
        rays = self.model.rays(batch.positions, batch.views)
        depth = self._along_rays(batch, rays) if batch.depth is not None else None
        shown = Shown(rays, batch.views, truth, background, batch.weight, depth, batch.alpha)
        loss, squared, n_samples, seen, is_whole = self.model.compare(shown, self.generator)
        for term in self.terms:
            moment = Moment(self.model, shown, seen, self.n_steps, self.progress, self.generator)
            loss = loss + scalar_of(term, moment)
        if self.errors is not None:
            known = squared if is_whole is None else torch.where(is_whole, squared, math.nan)  # what is no number teaches nothing
            self.errors.learn(batch.rows, known if batch.counts is None else known * batch.counts)
        # Of the pixels that count, as evaluation has it: those inside of masks. Where none does, of one view that its mask hides,
        # there is no error, which is something else than an error of zero.
        weight = torch.ones_like(squared) if shown.weight is None else shown.weight
        return Difference(loss, (squared * weight).sum() / weight.sum(), n_samples, is_whole)

    def _verdict(self, found: Difference) -> Tensor:  # [4] as `Given` has it
        lacks = torch.zeros_like(found.error) if found.is_whole is None else (~found.is_whole).to(found.error.dtype)
        loss, error, lacks = self.world.mean_of(torch.stack([found.loss.detach().reshape(()), found.error, lacks]))
        fine = has_finite_gradients(self.model).to(loss.device, non_blocking=True) & self.model.gradients_are_finite()
        return torch.stack([loss, error, loss.isfinite() & fine & (lacks == 0), lacks])

    def _learn_pace(self) -> None:
        """How many rays the next step has, by the samples of the last one."""
        if self._last is not None:
            self.n_rays = self.model.next_n_rays(self._last.n_rays, int(self._last.n_samples), self.world.size)
            self._last = None

    def _tell_guard(self, but: int = 0) -> None:
        """How all steps went but the last `but`, which a GPU may still be at."""
        while len(self._given) > but:
            _, error, is_made, lacks = self._given.pop(0).verdict.read()
            if not lacks:  # in which nothing is wrong
                self.guard.n_skipped += not is_made
                # Not the loss: terms of it may grow by their schedules, or be negative, while all goes well.
                if self.guard.watch(error if is_made else math.nan, self.model, self.optimiser):
                    self._given.clear()  # they are undone

    def _tell(self, given: Given) -> Told:
        """Time in which one waits for a step to be made is time of training."""
        with self.stopwatch.running():
            loss, error, *_ = given.verdict.read()
            return Told(loss, error, int(given.n_samples))

    def _catch_up(self) -> None:
        self._tell_guard()
        self._learn_pace()

    def warm_up(self) -> None:
        """Compile every kernel, on a copy of the state that is thrown away: training time is without compiling."""
        before = self.state_dict(copied=True)
        for _ in range(2):
            self.step()
        if self.model.rig.is_refined:  # and what is left of a step once cameras stay
            self.model.rig.requires_grad_(False)
            self.compare(self.draw(self.n_rays)).loss.backward()
        self.load_state_dict(before)

    def state_dict(self, copied: bool = False) -> dict[str, Any]:
        """Everything that training goes on from; `copied`: that further steps leave alone."""
        self._catch_up()
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
        self.guard.load_state_dict(state["guard"], self.model, self.optimiser)
        self.stopwatch = Stopwatch(state["seconds"])
        self.n_steps, self.n_rays, self._last, self._given = state["n_steps"], state["n_rays"], None, []

    def _optimiser(self) -> torch.optim.Optimizer:
        """Adam. The groups' first learning rates are what the schedule scales."""
        optimiser, rig = self.model.optimiser(), self.model.rig
        if rig.is_refined:
            first = self.config.poses.learning_rate
            optimiser.add_param_group({"name": "poses", "params": list(rig.parameters()), "first_lr": first})
        return optimiser

    def _follow_schedule(self) -> None:
        share, poses = self.model.rate(self.progress), self.config.poses
        for group in self.optimiser.param_groups:
            group["lr"] = group["first_lr"] * share
            if group["name"] == "poses":  # early: pictures get no sharper than cameras hold still
                group["lr"] = group["first_lr"] * log_linear(self.progress / poses.until, 1.0, 0.004)
        self.model.rig.requires_grad_(self.n_steps >= poses.from_step and self.progress < poses.until)

    def _background(self, n: int) -> Tensor:
        kind = self.config.batch.background
        if kind == "random":
            return random_numbers.uniform(n, 3, generator=self.generator, device=self.device)
        return torch.full((n, 3), float(kind == "white"), device=self.device)

    def _along_rays(self, batch: Batch, rays: Rays) -> Tensor:
        """Known depths as distances along rays."""
        assert batch.depth is not None
        assert self.scene.depths is not None
        if self.scene.depths.kind == "ray":
            return batch.depth
        forward = self.model.rig.poses()[batch.views.long(), :, 2]
        return batch.depth / (forward * rays.directions).sum(-1).clamp_min(1e-3).detach()
