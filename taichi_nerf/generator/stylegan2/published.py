"""Generators that others trained, from their files; and ours, for others' programs.

    read_generator("ffhq.pkl")                NVIDIA's pickles, executing nothing
    read_generator("stylegan2-ffhq.pt")       rosinality's checkpoints (g_ema, latent_avg; without that also train.py's)
    write_rosinality("mine.pt", generator)

Our state dict has NVIDIA's names. Rosinality's is the same numbers under other names and shapes: no kernel is flipped.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taichi_nerf.export.files import write_whole
from taichi_nerf.generator.stylegan2.generator import Generator, GeneratorSettings
from taichi_nerf.generator.stylegan2.layers import resampling_filter
from taichi_nerf.generator.stylegan2.nvidia_pickle import PickleError, read_networks
from taichi_nerf.weight_files import read_weights, weight_bytes

State = dict[str, Tensor]
AVERAGE = "mapping.w_avg"
N_MEASURED = 2**14  # codes


def read_generator(file: Path | str) -> Generator:
    """Frozen, in 32 bits, on the CPU; sizes are read from the weights."""
    file = Path(file)
    if file.suffix == ".pkl":
        networks = read_networks(file)
        state = networks.get("G_ema") or networks.get("G") or {}
        return generator_of(state, file)
    data = read_weights(file, "rosinality's checkpoint of a StyleGAN2, or NVIDIA's .pkl", PickleError)
    generator = generator_of(from_rosinality(data, file), file)
    if data.get("latent_avg") is None:  # of checkpoints that train.py writes; convert_weight.py's have it
        generator.mapping.w_avg.copy_(mean_of_codes(generator))
    return generator


@torch.no_grad()
def mean_of_codes(generator: Generator) -> Tensor:
    """[w_dim] over many random w: what truncation moves codes to where no running mean was kept."""
    z = torch.randn(N_MEASURED, generator.settings.z_dim, generator=torch.Generator().manual_seed(0))
    return generator.mapping.w(z).mean(0)


def write_rosinality(file: Path | str, generator: Generator) -> None:
    """A checkpoint that rosinality's generate.py opens with --size of the resolution (and --style of w_dim, if not 512)."""
    state = to_rosinality(generator.state_dict())
    write_whole(Path(file), weight_bytes({"g_ema": state, "latent_avg": generator.mapping.w_avg.detach().cpu()}))


def generator_of(state: State, file: Path | str) -> Generator:
    """A generator with these weights, under NVIDIA's names."""
    settings = settings_of(state, file)
    with torch.device("meta"):  # shapes alone: what does not fit costs no memory, whatever sizes the weights claim
        ours = Generator(settings).state_dict()
    wrong = sorted(n for n in ours.keys() | state.keys() if n not in ours or n not in state or ours[n].shape != state[n].shape)
    if wrong:
        shapes = " and ".join(str(tuple(s[wrong[0]].shape) if wrong[0] in s else None) for s in (state, ours))
        raise PickleError(file, f"{wrong[0]}: found and expected shapes are {shapes}")
    generator = Generator(settings)
    generator.load_state_dict({name: value.float() for name, value in state.items()})
    return generator.eval().requires_grad_(False)


def settings_of(state: State, file: Path | str) -> GeneratorSettings:
    """The sizes that these weights have."""
    if any(name.startswith("mapping.embed") for name in state):
        raise PickleError(file, "is conditioned on classes; only unconditional generators are read")
    sizes = [int(found[1]) for name in state if (found := re.fullmatch(r"synthesis\.b([0-9]{1,5})\.conv1\.weight", name))]
    if not sizes or "mapping.fc0.weight" not in state:
        raise PickleError(file, "holds no StyleGAN2 generator (mapping.fc0 and synthesis.b4 were expected)")
    resolution = max(sizes)
    n_channels = {size: int(state[f"synthesis.b{size}.conv1.weight"].shape[0]) for size in sizes}
    most = n_channels[min(sizes)]
    base = next((size * n for size, n in sorted(n_channels.items()) if n < most), resolution * most)
    w_dim, z_dim = (int(side) for side in state["mapping.fc0.weight"].shape)
    n_mapping = sum(name.startswith("mapping.fc") and name.endswith(".weight") for name in state)
    try:
        return GeneratorSettings(resolution, z_dim, w_dim, n_mapping, base, most)
    except ValueError as error:
        raise PickleError(file, str(error)) from None


def renamed(resolution: int, n_mapping: int) -> dict[str, str]:
    """Our name → rosinality's, of every weight that both have."""
    names = {AVERAGE: "latent_avg"}
    for i in range(n_mapping):
        names |= {f"mapping.fc{i}.{kind}": f"style.{i + 1}.{kind}" for kind in ("weight", "bias")}
    names["synthesis.b4.const"] = "input.input"
    layers = [("b4.conv1", "conv1", "noise_0")]
    colors = [("b4.torgb", "to_rgb1")]
    size, j = 8, 0
    while size <= resolution:
        layers += [(f"b{size}.conv{k}", f"convs.{2 * j + k}", f"noise_{2 * j + k + 1}") for k in (0, 1)]
        colors.append((f"b{size}.torgb", f"to_rgbs.{j}"))
        size, j = 2 * size, j + 1
    for ours, theirs, noise in layers:
        names |= {
            f"synthesis.{ours}.weight": f"{theirs}.conv.weight",
            f"synthesis.{ours}.affine.weight": f"{theirs}.conv.modulation.weight",
            f"synthesis.{ours}.affine.bias": f"{theirs}.conv.modulation.bias",
            f"synthesis.{ours}.noise_strength": f"{theirs}.noise.weight",
            f"synthesis.{ours}.bias": f"{theirs}.activate.bias",
            f"synthesis.{ours}.noise_const": f"noises.{noise}",
        }
    for ours, theirs in colors:
        names |= {
            f"synthesis.{ours}.weight": f"{theirs}.conv.weight",
            f"synthesis.{ours}.affine.weight": f"{theirs}.conv.modulation.weight",
            f"synthesis.{ours}.affine.bias": f"{theirs}.conv.modulation.bias",
            f"synthesis.{ours}.bias": f"{theirs}.bias",
        }
    return names


def to_rosinality(state: State) -> State:
    """Rosinality's state dict of ours; the mean of w is not part of it."""
    settings = settings_of(state, "generator")
    found: State = {}
    for ours, theirs in renamed(settings.resolution, settings.n_mapping).items():
        value = state[ours].detach().cpu()
        if ours.endswith(("conv0.weight", "conv1.weight", "torgb.weight", ".const")):
            value = value[None]
        elif ours.endswith("noise_strength"):
            value = value.reshape(1)
        elif ours.endswith("noise_const"):
            value = value[None, None]
        elif ours.endswith("torgb.bias"):
            value = value.reshape(1, 3, 1, 1)
        if ours != AVERAGE:
            found[theirs] = value.clone()
    for j in range(len(settings.resolutions) - 1):
        for name in (f"convs.{2 * j}.conv.blur.kernel", f"to_rgbs.{j}.upsample.kernel"):
            found[name] = 4 * resampling_filter()
    return found


def from_rosinality(data: Any, file: Path | str) -> State:
    """Our state dict of rosinality's checkpoint."""
    if not isinstance(data, Mapping) or not isinstance(data.get("g_ema"), Mapping):
        raise PickleError(file, "expected an entry g_ema, as rosinality's convert_weight.py and train.py write it")
    theirs = {str(name).removeprefix("module."): value for name, value in data["g_ema"].items()}
    n_mapping = sum(name.startswith("style.") and name.endswith(".weight") for name in theirs)
    resolution = 4 << sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight") for name in theirs)
    average = data.get("latent_avg")
    theirs["latent_avg"] = torch.zeros_like(theirs["style.1.bias"]) if average is None else average.reshape(-1)
    found: State = {}
    for ours, name in renamed(resolution, n_mapping).items():
        if not isinstance(theirs.get(name), Tensor):
            raise PickleError(file, f"g_ema: {name} is missing")
        value: Tensor = theirs[name]
        if ours.endswith(("conv0.weight", "conv1.weight", "torgb.weight", ".const")):
            value = value[0]
        elif ours.endswith("noise_strength"):
            value = value.reshape([])
        elif ours.endswith("noise_const"):
            value = value[0, 0]
        elif ours.endswith("torgb.bias"):
            value = value.reshape(3)
        found[ours] = value
    for size in (2**k for k in range(2, resolution.bit_length())):
        parts = ["", "conv1."] if size == 4 else ["", "conv0.", "conv1."]
        found |= {f"synthesis.b{size}.{part}resample_filter": resampling_filter() for part in parts}
    return found
