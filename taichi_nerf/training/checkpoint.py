"""A checkpoint: the whole state of a training in one safetensors file.

    save_checkpoint(file, {"step": 300, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, {"arch": "cpu"})
    state, metadata = load_checkpoint(file)

Tensors stand in the file under dotted names (`model.table`), all else as JSON in its header (`state_tree` tells what a state may
hold and how it comes back). The file is replaced in one step: whatever happens, it is whole, the new one or the former.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from taichi_nerf.file_error import FileError
from taichi_nerf.training.atomic import replacing
from taichi_nerf.training.state_tree import Flattened, unflattened
from taichi_nerf.training.tensor_file import read_tensors, write_tensors

FORMAT = "1"
OWN = ("format", "state", "checksum")  # what of the metadata is not the caller's


class CheckpointError(FileError):
    """A checkpoint that cannot be read or written. The message is one line and names the file."""


def save_checkpoint(file: Path, state: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write a checkpoint in place of the former one, which stays where this one does not fit on the disk."""
    if not all(isinstance(text, str) for text in metadata.values()) or metadata.keys() & set(OWN):
        raise TypeError(f"metadata has to be texts under keys other than {', '.join(OWN)}")
    flat = Flattened(state)
    header = {"format": FORMAT, "state": json.dumps(flat.json, allow_nan=False), **metadata}
    try:
        with replacing(file) as stream:
            write_tensors(stream, flat.tensors, header)
    except OSError as error:
        n_needed = sum(tensor.numel() * tensor.element_size() for tensor in flat.tensors.values()) + len(header["state"])
        kept = "; the former checkpoint is as it was" if file.exists() else ""
        room = f"it needs {_mib(n_needed)}{_available(file.parent)}"
        raise CheckpointError(file, f"could not be written ({error.strerror or error}): {room}{kept}") from error


def load_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """State, with its tensors on the CPU, and metadata."""
    if not file.is_file():
        raise CheckpointError(file, "no such checkpoint")
    try:
        tensors, metadata = read_tensors(file)
    except OSError as error:
        raise CheckpointError(file, f"could not be read ({error.strerror or error})") from error
    except ValueError as error:
        raise CheckpointError(file, str(error)) from None
    version, text = metadata.pop("format", None), metadata.pop("state", None)
    if version != FORMAT:
        raise CheckpointError(
            file, f"is of format {version}, this version of taichi_nerf reads {FORMAT}; use the one that wrote it"
        )
    try:
        return unflattened(json.loads(text or ""), tensors), metadata
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(file, "is damaged: its state and its tensors do not belong together") from None


def _available(folder: Path) -> str:
    return f", {_mib(shutil.disk_usage(folder).free)} are available" if folder.is_dir() else ""


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:.1f} MiB"
