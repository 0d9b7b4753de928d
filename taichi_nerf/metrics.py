"""How near a picture is to the truth: PSNR, SSIM in four published variants, LPIPS, and mip-NeRF's mean of the three. Tensors
[h, w, channels] in, floats out.

PSNR = −10 log₁₀(mean squared error) on colors from 0 to 1. SSIM: Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment:
From Error Visibility to Structural Similarity", 2004. LPIPS: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", 2018. Figures of different SSIM variants cannot be compared, so whoever prints one names its variant.
"""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from taichi_nerf.bands import bands
from taichi_nerf.weight_files import WeightsError, read_weights

# Pixels at a time: a photo of 24 megapixels would take 6 GB for SSIM and 25 for LPIPS of VGG.
AT_ONCE = 2**20


@torch.no_grad()
def psnr(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:  # [h, w, c], [h, w, c], [h, w] bool
    """−10 log₁₀ of the mean squared error, over the mask's pixels where there is one; infinite for equal pictures."""
    _check(image, truth)
    if mask is not None:
        if mask.shape != image.shape[:2]:
            raise ValueError(f"mask: expected shape {tuple(image.shape[:2])}, got {tuple(mask.shape)}")
        if not bool(mask.any()):
            raise ValueError("mask: has no pixels, so there is no error to measure")
    total, n = torch.zeros((), dtype=torch.float64, device=image.device), 0
    for rows in bands(len(image), image.shape[1], AT_ONCE):
        squared = (image[rows].double() - truth[rows].double()) ** 2
        if mask is not None:
            squared = squared[mask[rows].bool()]
        total, n = total + squared.sum(), n + squared.numel()
    return float(-10 * (total / n).log10())


def average_error(psnr: float, ssim: float, lpips: float) -> float:
    """mip-NeRF's (Barron et al. 2021): the geometric mean of the squared error 10^(−PSNR / 10), of √(1 − SSIM) and of LPIPS."""
    return float((10 ** (-psnr / 10) * math.sqrt(max(1 - ssim, 0)) * max(lpips, 0)) ** (1 / 3))


# --- SSIM ---------------------------------------------------------------------------------------------------------------


def _uniform(pictures: Tensor) -> Tensor:
    return functional.avg_pool2d(pictures, 7, stride=1)


def _gaussian(pictures: Tensor) -> Tensor:
    at = torch.arange(-5, 6, dtype=pictures.dtype, device=pictures.device)
    weights = torch.exp(-0.5 * (at / 1.5) ** 2)
    weights = weights / weights.sum()
    return functional.conv2d(functional.conv2d(pictures, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


class _Variant(NamedTuple):
    window: int  # pixels a side
    average: Callable[[Tensor], Tensor]  # over the window, where it fits into the picture
    data_range: float  # L in the constants (0.01 L)² and (0.03 L)²
    low: float = 0.0  # colors are stretched from [0, 1] to [low, 1]
    bessel: float = 1.0  # n / (n − 1) where variances are those of a sample


SAMPLE = 49 / 48
VARIANTS = {
    "skimage": _Variant(7, _uniform, 1.0, bessel=SAMPLE),  # skimage.metrics.structural_similarity(data_range=1)
    "regnerf": _Variant(7, _uniform, 2.0, bessel=SAMPLE),  # the same with skimage's former default for floats
    "diffusionerf": _Variant(7, _uniform, 2.0, low=-1.0, bessel=SAMPLE),  # the same on colors from −1 to 1
    "gaussian": _Variant(11, _gaussian, 1.0),  # tf.image.ssim, as mip-NeRF reports it
}


@torch.no_grad()
def ssim(image: Tensor, truth: Tensor, variant: str = "skimage") -> float:  # [h, w, c], [h, w, c]
    """Mean structural similarity over channels and over all windows that lie inside of the picture.

    (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)), one channel at a time.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    _check(image, truth)
    window = VARIANTS[variant].window
    if min(image.shape[:2]) < window:
        raise ValueError(f"image: SSIM needs {window} x {window} pixels, got {image.shape[1]} x {image.shape[0]}")
    n_rows, total = image.shape[0] - window + 1, torch.zeros((), dtype=torch.float64, device=image.device)
    for band in bands(n_rows, image.shape[1], AT_ONCE):
        rows = slice(band.start, band.stop + window - 1)
        total = total + _likeness(image[rows], truth[rows], VARIANTS[variant]).sum()
    return float(total / (n_rows * (image.shape[1] - window + 1) * image.shape[2]))


def _likeness(image: Tensor, truth: Tensor, variant: _Variant) -> Tensor:
    """[c, 1, h - window + 1, w - window + 1] of every window."""
    _, average, data_range, low, bessel = variant
    # A channel is a picture of its own. 64 bits, because variances are differences of nearly equal numbers.
    x, y = ((low + (1 - low) * each.double()).permute(2, 0, 1)[:, None] for each in (image, truth))
    mean_x, mean_y = average(x), average(y)
    variance_x = bessel * (average(x * x) - mean_x**2)
    variance_y = bessel * (average(y * y) - mean_y**2)
    covariance = bessel * (average(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))


# --- LPIPS --------------------------------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """A convolution of a trunk, by torchvision's number in `features`, with ReLU after it."""

    number: int
    n_out: int
    n_in: int
    kernel: int
    stride: int = 1
    padding: int = 1
    pool: int = 0  # side of the max pooling of stride 2 that comes before
    tap: bool = True  # compared


TRUNKS = {
    "alex": (
        _Layer(0, 64, 3, 11, 4, 2),
        _Layer(3, 192, 64, 5, 1, 2, pool=3),
        _Layer(6, 384, 192, 3, pool=3),
        _Layer(8, 256, 384, 3),
        _Layer(10, 256, 256, 3),
    ),
    "vgg": (
        _Layer(0, 64, 3, 3, tap=False),
        _Layer(2, 64, 64, 3),
        _Layer(5, 128, 64, 3, pool=2, tap=False),
        _Layer(7, 128, 128, 3),
        _Layer(10, 256, 128, 3, pool=2, tap=False),
        _Layer(12, 256, 256, 3, tap=False),
        _Layer(14, 256, 256, 3),
        _Layer(17, 512, 256, 3, pool=2, tap=False),
        _Layer(19, 512, 512, 3, tap=False),
        _Layer(21, 512, 512, 3),
        _Layer(24, 512, 512, 3, pool=2, tap=False),
        _Layer(26, 512, 512, 3, tap=False),
        _Layer(28, 512, 512, 3),
    ),
}
TRUNK_FILES = {"alex": "alexnet", "vgg": "vgg16"}  # how torchvision's files begin
SUFFIXES = (".pth", ".pt", ".safetensors")
EXPECTED = "weights of LPIPS or of its trunk, tensors by name"
STRIDE = 16  # rows of the picture to one of the last features
REACH = 128  # rows to either side that the last features see, and some more; a multiple of the stride
SMALLEST = 32  # pixels a side: AlexNet's last layers see nothing of less
WHERE = (
    "LPIPS needs two files in one folder: the ImageNet trunk (alexnet-owt-7be5be79.pth or vgg16-397923af.pth from "
    "https://download.pytorch.org/models/) and its linear layers (alex.pth or vgg.pth from lpips/weights/v0.1 of "
    "https://github.com/richzhang/PerceptualSimilarity)"
)


class Lpips:
    """LPIPS v0.1: squared differences of normalised features, weighted by channel, averaged over pixels, added over layers.

    `weights` is a folder with a trunk and its linear layers, or one file that holds both. Where a folder holds both networks,
    `network` says which one; left out, it is "alex". Figures of the two networks cannot be compared: `self.network` names it.
    """

    def __init__(self, weights: Path | str, network: str | None = None, device: torch.device | str = "cpu"):
        if network is not None and network not in TRUNKS:
            raise ValueError(f"network: expected one of {', '.join(TRUNKS)}, got {network!r}")
        self.network, tensors = _load(Path(weights), network)
        self.layers = TRUNKS[self.network]
        taps = [layer.n_out for layer in self.layers if layer.tap]
        needed: dict[str, tuple[int, ...]] = {f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate(taps)}
        for layer in self.layers:
            needed[f"features.{layer.number}.weight"] = (layer.n_out, layer.n_in, layer.kernel, layer.kernel)
            needed[f"features.{layer.number}.bias"] = (layer.n_out,)
        for name, shape in needed.items():
            if name not in tensors:
                raise WeightsError(weights, f"{name} is missing; {WHERE}")
            if tuple(tensors[name].shape) != shape:
                raise WeightsError(weights, f"{name}: expected shape {shape}, got {tuple(tensors[name].shape)}")
        self.tensors = {name: tensors[name].to(device, torch.float32) for name in needed}
        self.shift = torch.tensor([-0.030, -0.088, -0.188], device=device).view(1, 3, 1, 1)
        self.scale = torch.tensor([0.458, 0.448, 0.450], device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, image: Tensor, truth: Tensor) -> float:  # [h, w, 3], [h, w, 3] from 0 to 1
        """0 for equal pictures; more is worse."""
        _check(image, truth)
        if image.shape[2] != 3 or min(image.shape[:2]) < SMALLEST:
            raise ValueError(f"image: LPIPS needs 3 channels and {SMALLEST} x {SMALLEST} pixels, got {tuple(image.shape)}")
        height = len(image)
        sums, counts = [0.0] * len(self.layers), [0] * len(self.layers)  # of each tap, over the parts of the picture
        for band in bands(height, image.shape[1], AT_ONCE, STRIDE):
            # With all that features within it see; what is there for that alone does not count.
            top, bottom = max(0, band.start - REACH), min(height, band.stop + REACH)
            pairs = zip(self._features(image[top:bottom]), self._features(truth[top:bottom]), strict=True)
            for i, ((features, stride), (wanted, _)) in enumerate(pairs):
                rows = slice((band.start - top) // stride, None if band.stop == height else (band.stop - top) // stride)
                squared = (features[:, :, rows] - wanted[:, :, rows]) ** 2
                if not squared.numel():  # the last rows of a picture may be too few for one of features
                    continue
                found = functional.conv2d(squared, self.tensors[f"lin{i}.model.1.weight"])
                sums[i], counts[i] = sums[i] + float(found.sum()), counts[i] + found.numel()
        return sum(of_tap / n for of_tap, n in zip(sums, counts, strict=True) if n)

    def _features(self, image: Tensor) -> Iterator[tuple[Tensor, int]]:
        """[1, n, h, w] of one tap after the other, at each pixel a unit vector; and how many of the image's rows lie between
        two of its."""
        values = (2 * image.to(self.shift).permute(2, 0, 1)[None] - 1 - self.shift) / self.scale
        stride = 1
        for layer in self.layers:
            stride *= layer.stride * (2 if layer.pool else 1)
            if layer.pool:
                values = functional.max_pool2d(values, layer.pool, 2)
            weight, bias = (self.tensors[f"features.{layer.number}.{kind}"] for kind in ("weight", "bias"))
            values = functional.conv2d(values, weight, bias, layer.stride, layer.padding).relu_()
            if layer.tap:
                yield values / (values.norm(dim=1, keepdim=True) + 1e-10), stride


def _load(place: Path, network: str | None) -> tuple[str, dict[str, Tensor]]:
    """Which network the weights are of, and its tensors by the names of torchvision and lpips."""
    if place.is_file():
        tensors = _read(place)
        second = tensors.get("lin1.model.1.weight")
        found = "vgg" if second is not None and second.shape[1:2] == (128,) else "alex"
        if network not in (None, found):
            raise WeightsError(place, f"holds LPIPS weights of {found}, not of {network}")
        return found, tensors
    if not place.is_dir():
        raise WeightsError(place, f"no such file or folder; {WHERE}")
    for name in TRUNKS if network is None else (network,):
        trunk = sorted(file for file in place.glob(f"{TRUNK_FILES[name]}*") if file.suffix in SUFFIXES)
        linear = [place / f"{name}{suffix}" for suffix in SUFFIXES if (place / f"{name}{suffix}").is_file()]
        if trunk and linear:
            return name, _read(trunk[0]) | _read(linear[0])
    raise WeightsError(place, f"lacks weights of {network or 'alex and vgg'}; {WHERE}")


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict. A whole LPIPS model's names become those of its parts."""
    if file.suffix == ".safetensors":
        try:
            tensors = load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(file, f"is no readable .safetensors ({error}); expected {EXPECTED}") from None
    else:
        tensors = read_weights(file, EXPECTED)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(file, f"holds something else; expected {EXPECTED}")
    return {re.sub(r"^net\.slice\d+\.", "features.", name): value for name, value in tensors.items()}


def _check(image: Tensor, truth: Tensor) -> None:
    for name, picture in (("image", image), ("truth", truth)):
        if picture.ndim != 3:
            raise ValueError(f"{name}: expected one picture, [h, w, channels], got shape {tuple(picture.shape)}")
        if not picture.is_floating_point():
            raise ValueError(f"{name}: expected colors from 0 to 1, got {picture.dtype}: of bytes, take / 255")
    if image.shape != truth.shape:
        raise ValueError(f"image: expected the truth's shape {tuple(truth.shape)}, [h, w, channels], got {tuple(image.shape)}")
