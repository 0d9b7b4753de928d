"""features.safetensors: the network that learned an image set, and its sizes."""

from pathlib import Path

from taichi_nerf.file_error import one_line
from taichi_nerf.generator.evaluation.features import FeatureNetwork, FeatureSettings
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def save_features(file: Path, network: FeatureNetwork) -> None:
    save_checkpoint(file, {"settings": to_json_dict(network.settings), "weights": network.state_dict()}, {})


def load_features(file: Path) -> FeatureNetwork:
    """Frozen."""
    state, _ = load_checkpoint(file)
    try:
        network = FeatureNetwork(from_json_dict(FeatureSettings, state["settings"], str(file)))
        network.load_state_dict(state["weights"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(file, f"is no network of features ({one_line(error, 120)})") from None
    return network.eval().requires_grad_(False)
