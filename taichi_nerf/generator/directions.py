"""Directions in W along which images change in one way.

    pca            GANSpace (Härkönen et al. 2020): principal components of many w, gathered in one pass
    factorised     SeFa (Shen and Zhou 2021): eigenvectors of AᵀA, A the style weights of the chosen layers
    from_labels    InterFaceGAN's idea (Shen et al. 2020): the normal n of the plane that fits labels of w best; or cov(w) n,
                   along which codes differ where their labels do (Haufe et al. 2014)

Files are in GANSpace's layout (.npz: act_comp, act_mean, act_stdev, lat_comp, lat_mean, lat_stdev, var_ratio, random_stdevs),
with the number, sign and layers of the component that turns the object beside them (`yaw_component`, `yaw_sign`, `yaw_layers`),
the normals that read where a code is along them, if these are others (`normals`), and what share of their distance from the mean
the codes that are turned keep (`truncation`). None of these is the same for two generators.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator as Random
from torch import Tensor

from taichi_nerf.export.files import whole_stream
from taichi_nerf.file_error import FileError, one_line
from taichi_nerf.generator.stylegan2.generator import Generator
from taichi_nerf.report import Report, silent

BATCH = 10_000
TRUNCATION = 0.8  # the paper's
N_PROJECTED = 5_000  # samples whose spread along each direction is measured, as GANSpace does


class DirectionsError(FileError):
    """A file of directions that cannot be used. The message is one line and names the file."""


@dataclass(frozen=True)
class Directions:
    """Unit vectors in W, and how far w spreads along each."""

    components: Tensor  # [n, w_dim] rows of unit length
    mean: Tensor  # [w_dim] of w
    deviations: Tensor  # [n] standard deviation of w along each
    variance_ratio: Tensor  # [n] share of the variance of w
    random_deviations: Tensor  # [n] of w along random directions, to compare with
    yaw_component: int = 0
    yaw_sign: float = 1.0
    yaw_layers: tuple[int, int] = (0, 1000)  # codes that an edit changes, from the first to before the second
    truncation: float = TRUNCATION  # of the codes that are turned: 1, they are as various as the generator's images are
    normals: Tensor | None = None  # [n, w_dim] of the planes in which codes are equally far along each; None: the components

    @property
    def yaw(self) -> Tensor:
        """[w_dim] one standard deviation along the direction that turns the object."""
        return self.components[self.yaw_component] * self.deviations[self.yaw_component] * self.yaw_sign

    def at(self, w: Tensor) -> Tensor:
        """How many standard deviations along the yaw codes [n, w_dim] are from the mean."""
        yaw, normal = self.yaw.to(w), (self.components if self.normals is None else self.normals)[self.yaw_component].to(w)
        return (w - self.mean.to(w)) @ normal / (yaw @ normal)


def pca(generator: Generator, n_samples: int, n_components: int = 80, seed: int = 0,
        report: Report = silent) -> Directions:  # fmt: skip
    """Principal components of `n_samples` codes. Sums are gathered in 64 bits, so no code is kept."""
    n, w_dim = 0, generator.settings.w_dim
    total, products = torch.zeros(w_dim).double(), torch.zeros(w_dim, w_dim).double()
    random = Random().manual_seed(seed)
    while n < n_samples:
        w = samples(generator, min(BATCH, n_samples - n), random)
        total += w.sum(0)
        products += w.T @ w
        n += len(w)
        report(n / n_samples, f"{n} codes")
    mean = total / n
    covariance = (products - n * torch.outer(mean, mean)) / (n - 1)
    values, vectors = torch.linalg.eigh(covariance)
    order = values.argsort(descending=True)[: min(n_components, w_dim)]
    return measured(generator, vectors.T[order], mean, values[order] / values.sum(), random)


def factorised(generator: Generator, layers: tuple[int, int] | None = None, n_components: int = 80, seed: int = 0) -> Directions:
    """The unit vectors n that maximise ‖A n‖, A stacked from the style weights of these layers (each of the norm one)."""
    weights = style_weights(generator)[slice(*(layers or (0, None)))]
    stacked = torch.cat([weight / weight.norm(dim=1, keepdim=True) for weight in weights]).double()
    values, vectors = torch.linalg.eigh(stacked.T @ stacked)
    order = values.argsort(descending=True)[:n_components]
    random = Random().manual_seed(seed)
    mean = samples(generator, N_PROJECTED, random).mean(0)
    found = measured(generator, vectors.T[order], mean, values[order] / values.sum(), random)
    return replace(found, yaw_layers=layers or found.yaw_layers)


def from_labels(
    generator: Generator, codes: Tensor, labels: Tensor, seed: int = 0, ridge: float = 1e-3, along_means: bool = False
) -> Directions:
    """One direction: the normal n = cov(w)⁻¹ cov(w, label) of the plane that fits the labels [n] of the codes [n, w_dim] best.

    For labels −1 and 1 it separates the two classes (Fisher's discriminant), for numbers it is linear regression.

    `along_means`: cov(w) n instead, along which the mean of the codes of a label goes as the label changes. n is the shortest way
    to another label, but leads away from codes that there are. One standard deviation is then that of n w.
    """
    codes, labels = codes.double(), labels.double()
    if codes.ndim != 2 or labels.shape != codes.shape[:1]:
        raise ValueError(f"labels: expected one for each of {len(codes)} codes, got shape {tuple(labels.shape)}")
    if not (labels.isfinite().all() and labels.std() > 0):
        raise ValueError("labels: expected finite numbers that are not all the same; nothing turns with these")
    mean = codes.mean(0)
    centered = codes - mean
    covariance = centered.T @ centered / len(codes)
    covariance += ridge * covariance.trace() / len(covariance) * torch.eye(len(covariance)).double()
    normal = torch.linalg.solve(covariance, centered.T @ (labels - labels.mean()) / len(codes))
    along = covariance @ normal if along_means else normal
    found = measured(generator, along[None] / along.norm(), mean, torch.ones(1), Random().manual_seed(seed))
    if not along_means:
        return found
    step = along.norm() / (normal @ along).sqrt()  # n w changes by its standard deviation
    return replace(found, deviations=step[None].float(), normals=(normal / normal.norm())[None].float())


def measured(generator: Generator, components: Tensor, mean: Tensor, ratio: Tensor, random: Random) -> Directions:
    """With the spreads of fresh samples along these directions, and along as many random ones."""
    centered = samples(generator, N_PROJECTED, random) - mean
    drawn = torch.randn(components.shape, generator=random).double()
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    spread, of_random = (centered @ components.T).std(0), (centered @ drawn.T).std(0)
    return Directions(components.float(), mean.float(), spread.float(), ratio.float(), of_random.float())


def samples(generator: Generator, n: int, random: Random) -> Tensor:
    """w [n, w_dim] in 64 bits, on the CPU."""
    device = generator.mapping.w_avg.device
    with torch.no_grad():
        z = torch.randn(n, generator.settings.z_dim, generator=random)
        return generator.mapping.w(z.to(device)).double().cpu()


def style_weights(generator: Generator) -> list[Tensor]:
    """The matrix [n_channels, w_dim] from each layer's code to its styles, in the order of the codes."""
    found = []
    for resolution in generator.settings.resolutions:
        block = getattr(generator.synthesis, f"b{resolution}")
        layers = [block.conv1] if resolution == 4 else [block.conv0, block.conv1]
        found += [layer.affine.weight.detach().cpu() for layer in layers]
    return found


def moved(codes: Tensor, direction: Tensor, steps: Tensor, layers: tuple[int, int]) -> Tensor:
    """Codes [n, n_layers, w_dim] moved by `steps` [n] times the direction [w_dim], in the layers from one to before the other."""
    first, last = layers
    change = steps.to(codes)[:, None, None] * direction.to(codes)
    inside = torch.arange(codes.shape[1], device=codes.device)
    inside = ((inside >= first) & (inside < last)).to(codes)[None, :, None]
    return codes + change * inside


def centered(codes: Tensor, directions: Directions, layers: tuple[int, int]) -> Tensor:
    """Codes whose coordinate along the yaw direction is that of the mean: their objects look ahead."""
    return moved(codes, directions.yaw, -directions.at(codes[:, 0]), layers)


def save_directions(file: Path, found: Directions) -> None:
    """GANSpace's layout. Activations are w themselves, so act_* and lat_* agree."""
    components = found.components.numpy()[:, None]
    arrays: dict[str, Any] = {
        "act_comp": components,
        "act_mean": found.mean.numpy()[None],
        "act_stdev": found.deviations.numpy(),
        "lat_comp": components,
        "lat_mean": found.mean.numpy()[None],
        "lat_stdev": found.deviations.numpy(),
        "var_ratio": found.variance_ratio.numpy(),
        "random_stdevs": found.random_deviations.numpy(),
        "yaw_component": np.int64(found.yaw_component),
        "yaw_sign": np.float32(found.yaw_sign),
        "yaw_layers": np.array(found.yaw_layers, np.int64),
        "truncation": np.float64(found.truncation),
    }
    if found.normals is not None:
        arrays["normals"] = found.normals.numpy()
    with whole_stream(file) as stream:
        np.savez(stream, **arrays)


def load_directions(file: Path, w_dim: int | None = None) -> Directions:
    """GANSpace's files as well; without a chosen yaw, component 0 of all layers."""
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        components = torch.from_numpy(arrays["lat_comp"]).float().flatten(1)
        found = Directions(
            components,
            torch.from_numpy(arrays["lat_mean"]).float().flatten(),
            torch.from_numpy(arrays["lat_stdev"]).float().flatten(),
            torch.from_numpy(arrays["var_ratio"]).float().flatten(),
            torch.from_numpy(arrays["random_stdevs"]).float().flatten(),
            int(arrays.get("yaw_component", 0)),
            float(arrays.get("yaw_sign", 1.0)),
            tuple(int(end) for end in arrays.get("yaw_layers", (0, 1000))),  # type: ignore[arg-type]
            float(arrays.get("truncation", TRUNCATION)),
            torch.from_numpy(arrays["normals"]).float() if "normals" in arrays else None,
        )
    except Exception as error:  # zipfile, zlib and numpy all have errors of their own for broken files
        why = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else one_line(error, 120)
        raise DirectionsError(file, f"is no file of directions ({why})") from None
    n, width = components.shape
    fits = found.mean.shape == (width,) and found.deviations.shape == (n,) and 0 <= found.yaw_component < n
    fits = fits and len(found.yaw_layers) == 2
    if not fits or (found.normals is not None and found.normals.shape != (n, width)):
        raise DirectionsError(file, "its arrays do not belong together")
    if w_dim is not None and width != w_dim:
        raise DirectionsError(file, f"is of codes of {width} numbers, the generator's have {w_dim}")
    return found
