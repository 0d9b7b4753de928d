"""refiner.safetensors: a refiner, its sizes, and the turn that it was trained for."""

from pathlib import Path

from taichi_nerf.file_error import one_line
from taichi_nerf.generator.refiner.network import Refiner, RefinerSettings
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def save_refiner(file: Path, refiner: Refiner, reach: float) -> None:
    state = {"settings": to_json_dict(refiner.settings), "weights": refiner.state_dict(), "reach": reach}
    save_checkpoint(file, state, {})


def load_refiner(file: Path) -> tuple[Refiner, float]:
    """The refiner, frozen, and how far its objects turn, in standard deviations."""
    state, _ = load_checkpoint(file)
    try:
        refiner = Refiner(from_json_dict(RefinerSettings, state["settings"], str(file)))
        refiner.load_state_dict(state["weights"])
        return refiner.eval().requires_grad_(False), float(state["reach"])
    except SettingsError:
        raise
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(file, f"is no refiner ({one_line(error, 120)})") from None
