"""pixelNeRF's published weights, and torchvision's residual networks for its encoder. Nothing in a file is executed.

pixel_nerf_latest    a state dict of 278 tensors: encoder.model.*, code.*, mlp_coarse.*, mlp_fine.*
resnet34-*.pth       torchvision's: conv1.weight, bn1.*, layer1 to layer4, fc.* (which is left out); resnet18 likewise
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from taichi_nerf.fields.image_encoder import ImageEncoder
from taichi_nerf.weight_files import WeightsError, read_weights

N_TENSORS = 278
PARTS = ("encoder.", "code.", "mlp_coarse.", "mlp_fine.")


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The state of a `PixelAlignedField` of the published sizes."""
    found = _read(file, "pixel_nerf_latest of the authors, or a model.safetensors of `taichi-nerf pixelnerf train`")
    state = {name: value for name, value in found.items() if not name.startswith(("poses", "image_shape", "focal", "c."))}
    strange = [name for name in state if not name.startswith(PARTS)]
    if strange or len(state) != N_TENSORS:
        what = f"{strange[0]} is no part of it" if strange else f"it has {len(state)} tensors"
        raise WeightsError(file, f"expected the {N_TENSORS} tensors of pixel_nerf_latest; {what}")
    return state


def load_resnet(encoder: ImageEncoder, file: Path) -> None:
    """torchvision's weights into the encoder: of the same depth, 64 channels wide."""
    found = _read(file, f"torchvision's weights of {encoder.settings.kind}")
    state = {name: value for name, value in found.items() if not name.startswith("fc.")}
    model = encoder.model
    wanted = model.state_dict()
    state = {name: value for name, value in state.items() if name in wanted or not name.startswith("layer4.")}
    wrong = sorted(
        name
        for name in wanted.keys() | state.keys()
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape
    )
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]  # old files lack these
    if wrong:
        raise WeightsError(file, f"is no {encoder.settings.kind} of torchvision that fits: {wrong[0]} differs")
    model.load_state_dict(state, strict=False)


def _read(file: Path, expected: str) -> dict[str, Tensor]:
    data = read_weights(file, expected)
    if not isinstance(data, Mapping) or not all(isinstance(value, Tensor) for value in data.values()):
        raise WeightsError(file, "expected tensors by name, as torch.save(model.state_dict()) writes them")
    return {str(name): value for name, value in data.items()}
