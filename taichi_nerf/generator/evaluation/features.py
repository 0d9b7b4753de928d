"""A small network that learns one image set by itself, where no weights of others are at hand.

It is trained on real images alone, never on generated ones: pictures of one object (or, where objects are not known, two
variants of one picture) attract each other and all others repel (InfoNCE, van den Oord et al. 2018); where yaws are known, it
learns them, too.

    features     [n, 128]  of the trunk, for FID and KID: comparable within one set only, and never with Inception's
    identity     [n, 64]   unit vectors; the cosine tells whether two images show the same object
    yaws         [n]       radians
"""

from dataclasses import dataclass

import torch
from torch import Generator as Random
from torch import Tensor, nn
from torch.nn import functional

from taichi_nerf.generator.image_set import ImageSet
from taichi_nerf.generator.stylegan2.generator import smaller
from taichi_nerf.report import Report, silent

TEMPERATURE = 0.1
NAME = "self-trained"


@dataclass(frozen=True)
class FeatureSettings:
    size: int = 64
    width: int = 24
    knows_yaw: bool = True


class FeatureNetwork(nn.Module):
    """Strided convolutions with group normalisation."""

    def __init__(self, settings: FeatureSettings):
        super().__init__()
        self.settings = settings
        w = settings.width
        sizes = [(3, w, 1), (w, 2 * w, 2), (2 * w, 3 * w, 2), (3 * w, 4 * w, 2), (4 * w, 4 * w, 2)]
        self.trunk = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), nn.GroupNorm(4, n_out), nn.SiLU())
                for n_in, n_out, stride in sizes
            )
        )
        self.pooled = nn.Linear(4 * w * 4, 128)
        self.to_identity = nn.Sequential(nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 64))
        self.to_yaw = nn.Sequential(nn.SiLU(), nn.Linear(128, 2))

    def features(self, images: Tensor) -> Tensor:
        """[n, 128] of images [n, 3, ·, ·] from −1 to 1, which may lie anywhere: sets of them are kept in the host's memory."""
        images = images.to(self.pooled.weight.device)
        values = self.trunk(smaller(images.clamp(-1, 1), self.settings.size))
        return self.pooled(functional.adaptive_avg_pool2d(values, 2).flatten(1))

    def identity(self, images: Tensor) -> Tensor:
        return functional.normalize(self.to_identity(self.features(images)), dim=-1)

    def yaws(self, images: Tensor) -> Tensor:
        return self.direction(self.features(images))

    def direction(self, features: Tensor) -> Tensor:
        sine, cosine = self.to_yaw(features).unbind(-1)
        return torch.atan2(sine, cosine)


def train_features(
    images: ImageSet,
    settings: FeatureSettings,
    steps: int = 1500,
    batch: int = 48,
    device: torch.device | str = "cpu",
    seed: int = 0,
    report: Report = silent,
) -> FeatureNetwork:
    """Frozen. `batch` objects a step, two pictures of each."""
    random = Random().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FeatureNetwork(settings).to(device)
    pictures = torch.from_numpy(images.images).permute(0, 3, 1, 2)
    known_yaws = None if images.yaws is None or not settings.knows_yaw else torch.from_numpy(images.yaws).float()
    members = _members(images)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        chosen = torch.randperm(len(members), generator=random)[:batch].tolist()
        pairs = torch.stack([members[i][torch.randint(len(members[i]), (2,), generator=random)] for i in chosen], 1).flatten()
        seen = jittered(pictures[pairs].float().to(device) / 127.5 - 1, random)
        features = network.features(seen)
        loss = contrast(functional.normalize(network.to_identity(features), dim=-1))
        text = f"step {step + 1}: contrast {float(loss.detach()):.3f}"
        if known_yaws is not None:
            yaws = known_yaws[pairs].to(device)
            off = (network.to_yaw(features) - torch.stack([yaws.sin(), yaws.cos()], -1)).square().sum(-1).mean()
            loss = loss + 5 * off
            text += f", yaw {float(off.detach().sqrt()):.3f}"
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        report((step + 1) / steps, text)
    return network.eval().requires_grad_(False)


def contrast(identities: Tensor) -> Tensor:
    """InfoNCE of unit vectors [2 n, d], of which i and i + n belong together."""
    n = len(identities) // 2
    likeness = identities @ identities.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=likeness.device), -torch.inf)
    partner = torch.arange(2 * n, device=likeness.device).roll(n)
    return functional.cross_entropy(likeness, partner)


def jittered(images: Tensor, random: Random) -> Tensor:
    """Shifted by a few pixels, a little brighter or darker, a little noisy or soft: none of it changes object or yaw."""
    n, _, size, _ = images.shape
    most = max(1, size // 32)
    shifts = torch.randint(-most, most + 1, (n, 2), generator=random)
    images = torch.stack([image.roll((int(dy), int(dx)), (1, 2)) for image, (dy, dx) in zip(images, shifts, strict=True)])
    light = torch.rand(2, n, 1, 1, 1, generator=random).to(images)
    images = images * (0.9 + 0.2 * light[0]) + 0.1 * (light[1] - 0.5)
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.rand(n, 1, 1, 1, generator=random).to(images)
    noise = torch.randn(images.shape, generator=random).to(images)
    return images.lerp(soft, share) + 0.05 * noise * torch.rand(n, 1, 1, 1, generator=random).to(images)


def _members(images: ImageSet) -> list[Tensor]:
    """Picture numbers of each object; each picture is one where objects are not known."""
    if images.groups is None:
        return [torch.tensor([i]) for i in range(len(images))]
    groups = torch.from_numpy(images.groups)
    return [torch.nonzero(groups == group).flatten() for group in groups.unique()]
