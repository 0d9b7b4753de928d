"""Training StyleGAN2: the two networks in turn, regularisers every few steps, a running mean of the generator.

    training = GanTraining(images, GeneratorSettings(resolution=64), GanSettings(), device)
    for _ in range(n): row = training.step()
    save_checkpoint(file, training.state(), {}); training.load(load_checkpoint(file)[0])

The state holds the random numbers' too: a training that is resumed goes on exactly as it would have.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator as Random
from torch import Tensor, nn

from taichi_nerf.generator.stylegan2 import loss
from taichi_nerf.generator.stylegan2.augment import Strength, augmented
from taichi_nerf.generator.stylegan2.discriminator import Discriminator
from taichi_nerf.generator.stylegan2.generator import CLAMP, Generator, GeneratorSettings, Noise
from taichi_nerf.optimiser import Adam

RAMP = 0.05  # of the images seen so far, over which the running mean reaches at most
PATH_BATCH = 2  # the batch for path lengths is smaller by this factor


@dataclass(frozen=True)
class GanSettings:
    """How it is trained. Adam with β = (0, 0.99), corrected for the steps between regularisers (Karras et al. 2020, B)."""

    batch: int = 16
    learning_rate: float = 0.0025
    r1_gamma: float = 0.5
    r1_interval: int = 16  # steps from one penalty to the next
    path_weight: float = 2.0  # 0: none
    path_interval: int = 8
    mixing: float = 0.9  # probability that an image has codes of two z
    average_images: float = 10_000.0  # after which the running mean has forgotten half
    augment_target: float | None = None  # share of real images told right above which augmentation grows; None: none
    mirror: bool = False  # the set is doubled by its mirror images
    noise: bool = True  # random numbers at every pixel; without, no detail sticks to the screen while objects turn


class GanTraining:
    """Generator, discriminator, their optimisers, and what else a step depends on."""

    def __init__(
        self,
        images: NDArray[np.uint8],  # [n, size, size, 3]
        networks: GeneratorSettings,
        settings: GanSettings,
        device: torch.device | str = "cpu",
        seed: int = 0,
        precision: torch.dtype = torch.float32,
    ):
        if images.shape[1:] != (networks.resolution, networks.resolution, 3):
            raise ValueError(f"images: expected {networks.resolution} pixels a side, got shape {images.shape[1:]}")
        self.settings, self.networks, self.device = settings, networks, torch.device(device)
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.random = Random(self.device).manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator, self.discriminator = Generator(networks), Discriminator(networks)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        for module in (self.generator, self.average, self.discriminator):
            module.to(self.device)
        self.generator.synthesis.precision = self.discriminator.precision = precision
        if precision == torch.float16:
            self.generator.synthesis.clamp = CLAMP
        self.strength = Strength(settings.augment_target)
        self.path_mean = torch.zeros((), device=self.device)
        self.n_steps = self.n_images = 0
        path_interval = settings.path_interval if settings.path_weight > 0 else 0
        self.of_generator = self._adam(self.generator, path_interval)
        self.of_discriminator = self._adam(self.discriminator, settings.r1_interval)

    def _adam(self, module: nn.Module, interval: int) -> Adam:
        ratio = interval / (interval + 1) if interval else 1.0
        return Adam(module.parameters(), self.settings.learning_rate * ratio, (0.0, 0.99**ratio), 1e-8)

    def step(self) -> dict[str, float]:
        """One step of both networks; what happened."""
        row = {}
        self.discriminator.requires_grad_(False)
        row["generator"] = loss.generator_loss(self._judged(self._fake(self.settings.batch)))
        self._descend(self.of_generator, row["generator"])
        if self.settings.path_weight > 0 and self.n_steps % self.settings.path_interval == 0:
            row["path"] = self._path_step()
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fake = self._fake(self.settings.batch)
        regular = self.n_steps % self.settings.r1_interval == 0
        real = self._real().requires_grad_(regular)
        real_logits = self._judged(real)
        telling = loss.discriminator_loss(self._judged(fake), real_logits)
        total = telling
        if regular:
            row["r1"] = penalty = loss.r1_penalty(real, real_logits, self.settings.r1_gamma)
            total = telling + penalty * self.settings.r1_interval
        self._descend(self.of_discriminator, total)
        row["discriminator"] = telling
        self.strength.update(real_logits)
        self.n_steps += 1
        self.n_images += self.settings.batch
        self._average()
        found = {name: float(value.detach()) for name, value in row.items()}
        return {**found, "real_sign": float(real_logits.detach().sign().mean()), "augment": self.strength.p}

    def _descend(self, optimiser: Adam, total: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:  # a rare overflow must not end in the weights
                    parameter.grad.nan_to_num_(0.0, 1e5, -1e5)
        optimiser.step()

    def _path_step(self) -> Tensor:
        codes = self._codes(max(1, self.settings.batch // PATH_BATCH))
        images = self.generator.synthesis(codes, self._noise, self.random)
        penalty, self.path_mean = loss.path_penalty(loss.path_lengths(images, codes, self.random), self.path_mean)
        self._descend(self.of_generator, penalty * self.settings.path_weight * self.settings.path_interval)
        return penalty

    def _codes(self, n: int) -> Tensor:
        """[n, n_layers, w_dim]; from a random layer on, some are those of another z."""
        z = torch.randn(2, n, self.networks.z_dim, generator=self.random, device=self.device)
        codes = self.generator.mapping(z[0], update_average=True)
        if self.settings.mixing <= 0:
            return codes
        other = self.generator.mapping(z[1])
        n_layers = self.networks.n_layers
        cut = torch.randint(1, n_layers, (n, 1, 1), generator=self.random, device=self.device)
        mixed = torch.rand(n, 1, 1, generator=self.random, device=self.device) < self.settings.mixing
        layer = torch.arange(n_layers, device=self.device).view(1, -1, 1)
        return torch.where(mixed & (layer >= cut), other, codes)

    def _fake(self, n: int) -> Tensor:
        return self.generator.synthesis(self._codes(n), self._noise, self.random)

    @property
    def _noise(self) -> Noise:
        return "random" if self.settings.noise else "none"

    def _real(self) -> Tensor:
        chosen = torch.randint(len(self.images), (self.settings.batch,), generator=self.random, device=self.device).cpu()
        images = self.images[chosen].to(self.device).float() / 127.5 - 1
        if self.settings.mirror:
            flip = torch.rand(len(images), 1, 1, 1, generator=self.random, device=self.device) < 0.5
            images = torch.where(flip, images.flip(3), images)
        return images

    def _judged(self, images: Tensor) -> Tensor:
        seen = augmented(images, self.strength.p, self.random, self.settings.mirror)
        return self.discriminator(seen)

    @torch.no_grad()
    def _average(self) -> None:
        """G̅ ← β G̅ + (1 − β) G, β = ½^(batch / images until half is forgotten)."""
        reach = min(self.settings.average_images, self.n_images * RAMP)
        beta = 0.5 ** (self.settings.batch / max(reach, 1e-8))
        for mean, now in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            mean.copy_(now.lerp(mean, beta))
        for kept, new in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            kept.copy_(new)

    def state(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "of_generator": self.of_generator.state_dict(),
            "of_discriminator": self.of_discriminator.state_dict(),
            "path_mean": self.path_mean,
            "strength": self.strength.p,
            "n_steps": self.n_steps,
            "n_images": self.n_images,
            "random": self.random.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        for name in ("generator", "average", "discriminator", "of_generator", "of_discriminator"):
            getattr(self, name).load_state_dict(state[name])
        self.path_mean = state["path_mean"].to(self.device)
        self.strength.p = state["strength"]
        self.n_steps, self.n_images = state["n_steps"], state["n_images"]
        self.random.set_state(state["random"])
