"""A step of pixelNeRF's training: some objects, some of their views as sources, rays of all of their views.

loss = mean squared error of the coarse colors + that of the fine ones (Yu et al. 2021). Objects are gone through one after the
other, each with a backward pass of its own up to the features; the encoder's follows once, for all.
"""

from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.choices import LEVELS
from taichi_nerf.fields.pixel_aligned_field import Encoded, PixelAlignedField
from taichi_nerf.optimiser import Adam
from taichi_nerf.training.budget import Budget, Course, Stopwatch
from taichi_nerf.training.distributed import World
from taichi_nerf.training.guard import Guard
from taichi_nerf.training.pixelnerf_config import ObjectBatchSettings, PixelNerfConfig
from taichi_nerf.training.pixelnerf_objects import ObjectSet, ViewedObject
from taichi_nerf.training.pixelnerf_rays import Level, render_rays
from taichi_nerf.training.schedules import cosine
from taichi_nerf.training.step import Step, Told


def make_field(config: PixelNerfConfig) -> PixelAlignedField:
    return PixelAlignedField(config.field, config.encoder, torch.Generator().manual_seed(config.run.seed))


class PixelNerfTrainer(Course):
    def __init__(self, config: PixelNerfConfig, objects: ObjectSet, device: torch.device, world: World = World()):
        self.config, self.objects, self.device, self.world = config, objects, device, world
        self.field = make_field(config).to(device)  # channels outermost: torch 2.13 crashes training it the other way round
        rate = config.optimiser.learning_rate
        self.optimiser = Adam(self.field.parameters(), rate, fused=True)
        self.generator = torch.Generator().manual_seed(world.own_seed(config.run.seed))
        self.budget = Budget(config.run.steps, config.run.time_budget)
        self.stopwatch, self.guard, self.n_steps = Stopwatch(), Guard(), 0

    def step(self) -> Step:
        with self.stopwatch.running():
            self.field.train()
            settings = self.config.optimiser
            for group in self.optimiser.param_groups:
                group["lr"] = settings.learning_rate * cosine(self.progress, settings.final_share, settings.warm_up)
            loss, error, n_samples = self._gradients()
            self.world.average_gradients(self.field.parameters())
            loss, error = self.world.mean(loss, error)
            if self.guard.accepts(loss, self.field):
                self.optimiser.step()
            self.guard.watch(loss, self.field, self.optimiser)
            self.n_steps += 1
        n_rays = self.config.batch.n_objects * self.config.batch.n_rays
        return Step(self.n_steps, self.stopwatch.seconds, n_rays, lambda: Told(loss, error, n_samples))

    def agree(self) -> None:
        """Ranks that train together share the clock, from which the schedule and the end follow."""
        if self.world.size > 1:
            [seconds] = self.world.mean(self.stopwatch.seconds)
            self.stopwatch = Stopwatch(seconds)

    def _gradients(self) -> tuple[float, float, int]:
        """Loss, squared error of the last look, and how many samples were asked about."""
        batch = self.config.batch
        self.optimiser.zero_grad()
        chosen, views = draw_objects(self.objects, batch, self.generator)
        sources = [item.sources(index, self.device) for item, index in zip(chosen, views, strict=True)]
        encoded = self.field.encode_all(sources)
        leaves = [_leaf(one) for one in encoded]
        total, error, n_samples = 0.0, 0.0, 0
        for item, leaf in zip(chosen, leaves, strict=True):
            loss, squared, n = self._compare(item, leaf)
            (loss / batch.n_objects).backward()
            total += float(loss.detach()) / batch.n_objects
            error += squared / batch.n_objects
            n_samples += n
        roots, gradients = [], []
        for one, leaf in zip(encoded, leaves, strict=True):
            for root, end in ((one.coarse, leaf.coarse), (one.fine, leaf.fine)):
                if root is not None and end is not None and end.grad is not None:
                    roots.append(root)
                    gradients.append(end.grad)
        if roots:
            torch.autograd.backward(roots, gradients)
        return total, error, n_samples

    def _compare(self, item: ViewedObject, encoded: Encoded) -> tuple[Tensor, float, int]:
        """One object: loss, squared error, samples."""
        whole = self.progress >= self.config.batch.box_share
        errors, looks = errors_of_pixels(
            self.field, encoded, item, self.config, self.config.batch.n_rays, whole, self.generator, self.device
        )
        return errors.sum(), float(errors[-1].detach()), sum(look.n_samples for look in looks)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.field.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "guard": self.guard.state_dict(),
            "seconds": self.stopwatch.seconds,
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.field.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.guard.load_state_dict(state["guard"], self.field, self.optimiser)
        self.stopwatch, self.n_steps = Stopwatch(state["seconds"]), state["n_steps"]


def draw_objects(
    objects: ObjectSet, batch: ObjectBatchSettings, generator: torch.Generator
) -> tuple[list[ViewedObject], list[Tensor]]:
    """Random objects in random colors, and which views of each are sources."""
    chosen = [objects[int(i)] for i in torch.randint(len(objects), (batch.n_objects,), generator=generator)]
    if batch.color_shuffle:
        chosen = [item._replace(pictures=item.pictures[..., torch.randperm(3, generator=generator)]) for item in chosen]
    chosen = [jittered(item, batch.color_jitter, generator) for item in chosen]
    n_views = batch.views[int(torch.randint(len(batch.views), (1,), generator=generator))]
    return chosen, [torch.randperm(item.n_views, generator=generator)[:n_views] for item in chosen]


def errors_of_pixels(
    field: PixelAlignedField,
    encoded: Encoded,
    item: ViewedObject,
    config: PixelNerfConfig,
    n: int,
    whole: bool,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, list[Level]]:
    """Mean squared errors at n random pixels of an object's views, of each look, and the looks."""
    views, columns, rows = draw_pixels(item, n, generator, whole)
    truth = item.pictures[views, rows, columns].float().to(device) / 255
    rays = item.rays(torch.stack([columns, rows], -1) + config.field.pixel_center, views, device)
    level = LEVELS[config.objects.background]
    looks = render_rays(field, encoded, rays, (item.near, item.far), config.sampling, level, generator)
    return torch.stack([(look.color - truth).square().mean() for look in looks]), looks


def draw_pixels(item: ViewedObject, n: int, generator: torch.Generator, whole: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Views, columns and rows [n] of random pixels, of whole pictures or within the boxes that the object fills."""
    views = torch.randint(item.n_views, (n,), generator=generator)
    width, height = item.size
    boxes = torch.tensor([[0, width - 1, 0, height - 1]]).expand(n, 4) if whole else item.boxes()[views]
    share = torch.rand(n, 2, generator=generator)
    first, last = boxes[:, 0::2], boxes[:, 1::2]
    pixels = torch.minimum(first + (share * (last - first + 1)).long(), last)
    return views, pixels[:, 0], pixels[:, 1]


def jittered(item: ViewedObject, amount: float, generator: torch.Generator) -> ViewedObject:
    """All pictures of an object brighter or darker, of more or less contrast and saturation, alike."""
    if not amount:
        return item
    brightness, contrast, saturation = (1 + amount * (2 * torch.rand(3, generator=generator) - 1)).tolist()
    colors = item.pictures.float() * brightness
    middle = colors.mean()
    colors = middle + contrast * (colors - middle)
    grey = colors.mean(-1, keepdim=True)
    colors = (grey + saturation * (colors - grey)).clamp(0, 255).round().to(torch.uint8)
    return item._replace(pictures=colors)


@torch.no_grad()
def settle_statistics(
    field: PixelAlignedField, objects: ObjectSet, batch: ObjectBatchSettings, n: int, device: torch.device
) -> None:
    """What batch normalisation subtracts and divides by when it no longer trains: the mean over n batches, all alike.

    They are drawn as in training. Views of one object by itself vary less than those of several, and would be divided by less.
    """
    norms = [module for module in field.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    generator = torch.Generator().manual_seed(0)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    field.train()
    for _ in range(n):
        drawn = zip(*draw_objects(objects, batch, generator), strict=True)
        pictures = [item.sources(views, device).pictures for item, views in drawn]
        one_size = len({each.shape[2:] for each in pictures}) == 1
        for each in [torch.cat(pictures)] if one_size else pictures:
            field.encoder(each)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    field.eval()


def _leaf(encoded: Encoded) -> Encoded:
    fine = None if encoded.fine is None else encoded.fine.detach().requires_grad_()
    return Encoded(encoded.coarse.detach().requires_grad_(), fine, encoded.sources)
