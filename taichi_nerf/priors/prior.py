"""A trained prior: the denoiser and all that one has to know to ask it. Read from a file of ours or from a published checkpoint.

    prior = load_prior("builtin")               # shipped with the package; or a path of a file or of a training
    prior.score(patches, t)                     # ∇ log p of patches [n, channels, size, size] in [-1, 1]

A file of ours is a safetensors file; its metadata `prior` is JSON with the settings, and with how the prior was made.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from taichi_nerf.file_error import FileError, one_line
from taichi_nerf.priors.channels import N_CHANNELS, NEAREST, Variant
from taichi_nerf.priors.denoiser import Denoiser, DenoiserSettings
from taichi_nerf.priors.noise_schedule import Kind, NoiseSchedule
from taichi_nerf.priors.patch_cameras import FOCAL
from taichi_nerf.settings import SettingsError, from_json_dict, to_json_dict
from taichi_nerf.weight_files import read_weights

BUILTIN = "builtin"
FILE = "prior.safetensors"  # in the folder of a training
BUILTIN_FILE = Path(__file__).with_name("builtin.safetensors")
PUBLISHED_SIZE = 48
EMA, NETWORK = "ema.", "ema_model.model."  # in DiffusioNeRF's checkpoints
MOST_WIDTH, MOST_LEVELS = 1024, 8  # of files that are read


class PriorError(FileError):
    """A prior that cannot be read. The message is one line and names the file."""


@dataclass(frozen=True)
class PriorSettings:
    """What a prior is a prior of."""

    denoiser: DenoiserSettings = DenoiserSettings()
    schedule: Kind = "cosine"
    n_times: int = 1000
    size: int = PUBLISHED_SIZE  # pixels of a patch
    focal: float = FOCAL  # pixels: how wide an angle a patch is
    nearest: float = NEAREST  # metres: inverse depth is a share of 1 / nearest
    variant: Variant = "rgbd"

    def __post_init__(self) -> None:
        if self.denoiser.channels != N_CHANNELS[self.variant]:
            raise ValueError(f"patches of {self.variant} have {N_CHANNELS[self.variant]} channels, not {self.denoiser.channels}")
        if self.size < 1 or self.size % self.denoiser.multiple:
            raise ValueError(f"size: expected a multiple of {self.denoiser.multiple}, got {self.size}")
        if not (self.focal > 0 and self.nearest > 0 and 1 <= self.n_times <= 100_000):
            numbers = f"{self.focal}, {self.nearest}, {self.n_times}"
            raise ValueError(f"expected a focal length, a nearest depth and a number of times of more than 0, got {numbers}")


@dataclass
class Prior:
    settings: PriorSettings
    denoiser: Denoiser
    made: dict[str, Any] = field(default_factory=dict)  # how: command, data, seed, steps, seconds

    def __post_init__(self) -> None:
        self.schedule = NoiseSchedule.of(self.settings.schedule, self.settings.n_times)
        self.denoiser.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "Prior":
        self.denoiser.to(device)
        return self

    @torch.no_grad()
    def noise_in(self, patches: Tensor, t: int) -> Tensor:
        """The noise that the denoiser sees at time t."""
        return self.denoiser(patches, torch.full((len(patches),), t, device=patches.device))

    def score(self, patches: Tensor, t: int) -> Tensor:
        """∇ log p_t(patches) = -ε(patches, t) / √(1 - ᾱ_t)."""
        return -self.noise_in(patches, t) / float(self.schedule.noise[t])


def load_prior(name: Path | str) -> Prior:
    """`builtin`, the folder of a training, a file of ours (.safetensors), or the checkpoint that DiffusioNeRF published (.pt)."""
    file = BUILTIN_FILE if str(name) == BUILTIN else Path(name)
    if file.is_dir():
        file = file / FILE
    if not file.is_file():
        hint = "; `taichi-nerf prior train` makes one, and `builtin` names the one that comes with taichi_nerf"
        raise PriorError(file, f"no such prior{hint}")
    return read_published(file) if file.suffix in (".pt", ".pth") else _read(file)


def prior_bytes(prior: Prior, half: bool = False) -> bytes:
    """The content of a file that `load_prior` reads; `half`: in numbers of 16 bits."""
    state = {name: value.detach().cpu().contiguous() for name, value in prior.denoiser.state_dict().items()}
    if half:
        state = {name: value.half() for name, value in state.items()}
    about = {**to_json_dict(prior.settings), "made": prior.made}
    return bytes(save(state, {"prior": json.dumps(about)}))


def _read(file: Path) -> Prior:
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {})["prior"])
            state = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 (no mapping)
        made = about.pop("made", {})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PriorError(file, f"is no prior of taichi_nerf ({one_line(error, 120)})") from None
    settings = settings_from(about, str(file))
    return Prior(settings, _filled(settings.denoiser, state, file), made)


def settings_from(about: Any, source: str) -> PriorSettings:
    """What the metadata says; `source` names the file. Sizes that would fill the memory are refused."""
    settings = from_json_dict(PriorSettings, about, source)
    width, levels = settings.denoiser.width, settings.denoiser.multipliers
    if not (width <= MOST_WIDTH and len(levels) <= MOST_LEVELS and max(levels) * width <= 16 * MOST_WIDTH):
        raise SettingsError(f"{source}: its denoiser is larger than any that is read")
    return settings


def read_published(file: Path) -> Prior:
    """DiffusioNeRF's checkpoint: its averaged weights. Nothing in the file is executed."""
    data = read_weights(file, "DiffusioNeRF's checkpoint, or a prior.safetensors of `taichi-nerf prior train`", PriorError)
    averaged = data.get("ema") if isinstance(data, dict) else None
    if not isinstance(averaged, dict):
        raise PriorError(file, "expected an entry ema, as DiffusioNeRF's checkpoints have it")
    state = {name[len(NETWORK) :]: value for name, value in averaged.items() if str(name).startswith(NETWORK)}
    first, last = state.get("init_conv.weight"), "ups.0.2.fn.norm.g"
    if not isinstance(first, Tensor) or first.ndim != 4 or last not in state:
        raise PriorError(file, f"expected {EMA}{NETWORK}init_conv.weight and so on, the averaged denoiser")
    n_levels = sum(name.startswith("downs.") and name.endswith(".2.fn.norm.g") for name in state)
    width, channels = first.shape[:2]
    widths = [_out_channels(state, level, file) for level in range(n_levels)]
    about = to_json_dict(PriorSettings()) | {"variant": {1: "d", 3: "rgb"}.get(channels, "rgbd")}
    try:
        about["denoiser"] = {"width": width, "multipliers": [n // width for n in widths], "channels": channels}
        settings = settings_from(about, "its sizes")
        made = {"by": "DiffusioNeRF", "file": file.name, "steps": int(data.get("step", 0))}
    except (TypeError, ValueError, ArithmeticError) as error:
        raise PriorError(file, f"holds no denoiser of DiffusioNeRF's ({error})") from None
    return Prior(settings, _filled(settings.denoiser, state, file), made)


def _out_channels(state: dict[str, Tensor], level: int, file: Path) -> int:
    weight = state.get(f"downs.{level}.3.weight")
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        raise PriorError(file, f"downs.{level}.3.weight is missing")
    return int(weight.shape[0])


def _filled(settings: DenoiserSettings, state: dict[str, Tensor], file: Path) -> Denoiser:
    """A denoiser with these weights, if they are all of its weights."""
    with torch.device("meta"):  # shapes alone: what does not fit costs no memory, whatever sizes the file claims
        expected = {name: tuple(value.shape) for name, value in Denoiser(settings).state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise PriorError(file, f"{wrong[0]} is {found.get(wrong[0])}, expected {expected.get(wrong[0])}")
    denoiser = Denoiser(settings)
    denoiser.load_state_dict({name: value.float() for name, value in state.items()})
    return denoiser
