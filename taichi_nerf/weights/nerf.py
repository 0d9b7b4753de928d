"""NeRF's networks in the files of its published codes, for `fields.nerf_field.NerfField`.

TensorFlow    model_XXXXXX.npy and model_fine_XXXXXX.npy: each a list of matrices [in, out] and biases, those of the layers,
              then of feature, view, color, density
nerf-pytorch  XXXXXX.tar: network_fn_state_dict and network_fine_state_dict, with pts_linears.0 and so on, feature_linear,
              views_linears.0, rgb_linear, alpha_linear

A file tells the sizes of its network: `encoding_of` and `network_of` give the settings that fit. Both codes encode with the
identity and without π.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taichi_nerf.fields.nerf_field import EncodingSettings, NerfField, NetworkSettings
from taichi_nerf.weight_files import WeightsError, read_weights
from taichi_nerf.weights.object_arrays import read_arrays, write_arrays

State = dict[str, Tensor]  # of `fields.view_mlp.ViewMlp`
HEADS = {"feature_linear": "feature", "views_linears.0": "view", "rgb_linear": "color", "alpha_linear": "density"}
COARSE, FINE = "network_fn_state_dict", "network_fine_state_dict"


def read_torch(file: Path) -> tuple[State, State | None]:
    """Coarse and fine network of a nerf-pytorch checkpoint; nothing in it is executed."""
    data = read_weights(file, "a checkpoint of nerf-pytorch")
    if not isinstance(data, Mapping) or not isinstance(data.get(COARSE), Mapping):
        raise WeightsError(file, f"expected an entry {COARSE}, as nerf-pytorch writes it")
    fine = data.get(FINE)
    return _from_torch(data[COARSE], file, COARSE), None if fine is None else _from_torch(fine, file, FINE)


def write_torch(file: Path, coarse: State, fine: State | None, n_steps: int = 0) -> None:
    """A checkpoint that nerf-pytorch renders from; it holds no state of an optimiser."""
    torch.save({"global_step": n_steps, COARSE: _to_torch(coarse), FINE: None if fine is None else _to_torch(fine)}, file)


def read_tensorflow(file: Path) -> State:
    """One network of the TensorFlow code."""
    arrays = read_arrays(file)
    n_layers = len(arrays) // 2 - 4
    if len(arrays) % 2 or n_layers < 1:
        raise WeightsError(file, f"lists {len(arrays)} arrays; expected pairs for the layers, feature, view, color and density")
    names = [*(f"layers.{i}" for i in range(n_layers)), "feature", "view", "color", "density"]
    state: State = {}
    for name, matrix, bias in zip(names, arrays[::2], arrays[1::2], strict=True):
        if matrix.ndim != 2 or bias.shape != matrix.shape[1:]:
            raise WeightsError(file, f"{name}: a matrix {matrix.shape} and a bias {bias.shape} do not belong together")
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(matrix.T, np.float32))
        state[f"{name}.bias"] = torch.from_numpy(np.ascontiguousarray(bias, np.float32))
    return _checked(state, file, "the list")


def write_tensorflow(file: Path, state: State) -> None:
    names = [*(f"layers.{i}" for i in range(n_layers_of(state))), "feature", "view", "color", "density"]
    pairs = ((state[f"{name}.weight"].T, state[f"{name}.bias"]) for name in names)
    write_arrays(file, [part.detach().cpu().contiguous().numpy() for pair in pairs for part in pair])


def field_of(state: State) -> NerfField:
    """A field with these weights, in float32."""
    field = NerfField(encoding_of(state), network_of(state), torch.Generator())
    field.network.load_state_dict(state)
    return field


def encoding_of(state: State) -> EncodingSettings:
    n_position = state["layers.0.weight"].shape[1]
    n_view = state["view.weight"].shape[1] - state["feature.weight"].shape[0]
    return EncodingSettings((n_position - 3) // 6, (n_view - 3) // 6)


def network_of(state: State) -> NetworkSettings:
    n_hidden, n_position = state["layers.0.weight"].shape
    n_layers = n_layers_of(state)
    wide = [i for i in range(1, n_layers) if state[f"layers.{i}.weight"].shape[1] == n_hidden + n_position]
    return NetworkSettings(n_layers, n_hidden, wide[0] - 1 if wide else n_layers, state["view.weight"].shape[0])


def n_layers_of(state: State) -> int:
    return sum(name.startswith("layers.") and name.endswith(".weight") for name in state)


def _from_torch(found: Mapping[str, Any], file: Path, entry: str) -> State:
    state: State = {}
    for name, value in found.items():
        stem, _, kind = name.removeprefix("module.").rpartition(".")
        ours = f"layers.{stem.removeprefix('pts_linears.')}" if stem.startswith("pts_linears.") else HEADS.get(stem)
        if ours is None or kind not in ("weight", "bias") or not isinstance(value, Tensor):
            raise WeightsError(file, f"{entry}: {name} is no part of NeRF's network with view directions")
        state[f"{ours}.{kind}"] = value.float()
    return _checked(state, file, entry)


def _to_torch(state: State) -> State:
    theirs = {ours: name for name, ours in HEADS.items()}
    found = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        stem = stem.replace("layers.", "pts_linears.") if stem.startswith("layers.") else theirs[stem]
        found[f"{stem}.{kind}"] = value.detach().cpu()
    return found


def _checked(state: State, file: Path, where: str) -> State:
    """The state if its parts fit together."""
    try:
        n_position = state["layers.0.weight"].shape[1]
        n_view = state["view.weight"].shape[1] - state["feature.weight"].shape[0]
        if min(n_position, n_view) < 3 or (n_position - 3) % 6 or (n_view - 3) % 6:
            raise WeightsError(file, f"{where}: {n_position} and {n_view} inputs are no encoded place and direction")
        expected = field_shapes(state)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(file, f"{where}: is incomplete ({error})") from None
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
    if wrong:
        raise WeightsError(file, f"{where}: {wrong[0]} is {shapes.get(wrong[0])}, expected {expected.get(wrong[0])}")
    return state


def field_shapes(state: State) -> dict[str, tuple[int, ...]]:
    """What the parts of a network of these settings measure."""
    field = NerfField(encoding_of(state), network_of(state), torch.Generator())
    return {name: tuple(value.shape) for name, value in field.network.state_dict().items()}
