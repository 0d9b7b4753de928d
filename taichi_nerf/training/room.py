"""Whether the pixels of a training, and its hash grids, fit into memory, asked before the first is read or made.

Linux promises more memory than there is, and ends a process that takes it, in the middle of reading and without a word.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from taichi_nerf.fields.density_field import DensitySettings
from taichi_nerf.fields.hash_grid_field import HashGridSettings, layout_of
from taichi_nerf.ops.hash_grid import level_layout
from taichi_nerf.scenes import SceneData, SceneError
from taichi_nerf.scenes.images import first_readable
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training.config import Config
from taichi_nerf.training.pixel_batches import n_columns

USABLE = 0.9  # of what is available: the rest is for the training itself
MOST_DOWNSCALE = 64
BYTES_OF_DEPTH = 4


def expect_room(scene: SceneData, views: list[int], with_depth: bool, downscale: float) -> None:
    """Refuse pictures, masks and depths of these views that are larger than the memory that is left, and say what would fit."""
    n_pixels = int(scene.cameras.sizes[views].prod(-1).sum())
    first = first_readable(scene.images.subset(np.asarray(views)).unkept())
    n_bytes = n_pixels * n_columns(first) * first.itemsize
    n_bytes += n_pixels * (scene.masks is not None)
    n_bytes += n_pixels * BYTES_OF_DEPTH * (with_depth and scene.depths is not None)
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's, each of which has its own
    n_bytes *= n_processes
    room = available_bytes()
    if room is None or n_bytes <= USABLE * room:
        return
    needed = downscale * math.sqrt(n_bytes / (USABLE * max(room, 1)))
    mend = f"--downscale {math.ceil(needed)}, or " if needed <= MOST_DOWNSCALE else ""
    each = f" in {n_processes} processes" if n_processes > 1 else ""
    raise SceneError(
        scene.folder,
        f"{len(views)} training pictures of {n_pixels / 1e6:,.0f} megapixels together take {_gb(n_bytes)} of memory{each}, and "
        f"{_gb(room)} are available; give {mend}--n-views for fewer of them",
    )


def expect_room_for_tables(config: Config, device: torch.device) -> None:
    """Refuse hash grids that are larger than the memory that is left, with what training keeps of each number: its gradient and
    Adam's two means. On a GPU of CUDA these do not come here."""
    room = available_bytes()
    for section in fields(config):
        settings = getattr(config, section.name)
        if room is None or not isinstance(settings, HashGridSettings | DensitySettings):
            continue
        last = level_layout(**layout_of(settings))[-1]
        n_bytes = (last.offset + last.size) * settings.n_features * 4 * (4 if device.type == "cpu" else 1)
        if n_bytes > USABLE * room:
            raise SettingsError(
                f"{section.name}: a table of n_levels={settings.n_levels}, n_features={settings.n_features} and "
                f"log2_table_size={settings.log2_table_size} takes {_gb(n_bytes)} of memory, and {_gb(room)} are available"
            )


def available_bytes() -> int | None:
    """That this process may still take, swap included; None where the system does not tell. The least of what the machine has,
    what control groups (containers, batch systems) leave, and what `ulimit -v` does."""
    known = [room for room in (_of_machine(), *_of_control_groups(), _of_process()) if room is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    told = _table(Path("/proc/meminfo"))
    if "MemAvailable:" in told:
        return 1024 * (told["MemAvailable:"] + told.get("SwapFree:", 0))
    with suppress(AttributeError, ValueError, OSError):  # elsewhere all that there is, taken or not
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Of version 2: what each group that holds this process leaves. Cached files give way."""
    with suppress(OSError):
        paths = [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")]
        folder = root / paths[0].lstrip("/") if paths else root
        for group in (folder, *folder.parents):
            with suppress(OSError, ValueError):
                limit, taken = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
                yield limit - taken + _table(group / "memory.stat").get("inactive_file", 0)
            if group == root:
                break


def _of_process() -> int | None:
    if sys.platform != "linux":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = _table(Path("/proc/self/status")).get("VmSize:")
    return None if limit == resource.RLIM_INFINITY or taken is None else limit - 1024 * taken


def _table(file: Path) -> dict[str, int]:
    """Files of the kernel whose lines are a name and a number."""
    with suppress(OSError):
        rows = (line.split() for line in file.read_text().splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
    return {}


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
