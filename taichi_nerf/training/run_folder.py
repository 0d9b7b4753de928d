"""A run folder: everything that a training writes.

RUN/config.json                settings, scene, versions, arch, device; written once, first
RUN/checkpoint.safetensors     `checkpoint`
RUN/metrics.jsonl              one JSON object a line, each with a step (`metrics_file`)
RUN/eval/<split>/metrics.json  and pictures
RUN/plots/*.png  RUN/preview/*.png
RUN/.lock                      held by the process that trains (`folder_lock`)

with RunFolder.create(path) as run: ...        a new run (or, with overwrite, in place of another, from `write_config` on)
with RunFolder.open(path).locked() as run: ... to go on with one
run = RunFolder.open(path)                     to read one
"""

import json
import platform
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from taichi_nerf import __version__
from taichi_nerf.quoting import quote
from taichi_nerf.training import metrics_file
from taichi_nerf.training.atomic import partials, replacing
from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.folder_lock import LOCK, FolderLock
from taichi_nerf.training.run_error import RunError

FORMAT = 1
NEEDED = ("settings", "scene", "arch", "device")  # of config.json, beside what is added here
CONFIG, CHECKPOINT, METRICS = "config.json", "checkpoint.safetensors", "metrics.jsonl"
PACKAGES = ("torch", "taichi", "numpy")
# What overwriting removes. Whatever else there is in a run's folder is somebody's own and stays.
OURS = (
    CONFIG,
    CHECKPOINT,
    METRICS,
    "model.safetensors",
    "eval/*/metrics.json",
    "eval/*/**/*.png",
    "plots/*.png",
    "preview/*.png",
)
N_NAMED = 3  # files that an error names


class LostConfig(UserWarning):
    """A run without its config.json, as a partial copy has none; the message is one line."""


class RunFolder:
    """The files of one run. Made by `create` or `open`."""

    def __init__(self, path: Path | str):
        self.path = path = Path(path)
        self.config = path / CONFIG
        self.checkpoint = path / CHECKPOINT
        self.metrics = path / METRICS
        self.plots = path / "plots"
        self.preview = path / "preview"
        self._lock: FolderLock | None = None
        self._starts_anew = False  # what is there goes when config.json is written

    @classmethod
    def create(cls, path: Path | str, overwrite: bool = False) -> "RunFolder":
        """A new run in a new or empty folder, locked. A run that is there is replaced if `overwrite`, other folders never.

        Until `write_config` the former run is as it was, so who fails before that loses nothing, and a folder that was made
        for the new one goes again.
        """
        run = cls(path)
        expect_place(run.path, overwrite)
        run._starts_anew = True
        return run.locked()

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """A run that exists. It is not locked: `open(path).locked()` is for who goes on training."""
        run, path = cls(path), Path(path)
        if not run.config.is_file() and _config_in(run.checkpoint) is None:
            for inside in sorted(path.glob(f"*/{CONFIG}")):
                if _config_of(inside) is not None:
                    raise RunError(path, f"holds no run itself (no config.json); {inside.parent} is one")
            if path.is_file():
                mine = f": {path.parent}" if _config_of(path.parent / CONFIG) is not None else ""
                raise RunError(path, f"is a file; a run is a folder{mine}")
            why = "holds no run (no config.json)" if path.is_dir() else "no such run"
            raise RunError(path, f"{why}; `taichi-nerf train SCENE --out {quote(path)}` makes one")
        run.read_config()
        return run

    def locked(self) -> "RunFolder":
        """Keep other processes from training into this folder, until `close` or the end of the process."""
        self._lock = FolderLock(self.path)
        return self

    def close(self) -> None:
        """Let others train into this folder. If it was made for a run that never began, it goes."""
        if self._lock is not None:
            self._lock.close(began=self.config.exists())
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def eval_folder(self, split: str) -> Path:
        """Where the evaluation of a split stands."""
        if not split or split in (".", "..") or set(split) & set("/\\\0"):
            raise RunError(self.path / "eval", f"{split!r} is no name of a split")
        return self.path / "eval" / split

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json: what is given (settings, scene with location and content_hash, arch, device), format, versions."""
        missing = [key for key in NEEDED if key not in config]
        if missing:
            raise RunError(self.config, f"has to have {', '.join(missing)}")
        versions = {"taichi_nerf": __version__, "python": platform.python_version()}
        versions |= {name: metadata.version(name) for name in PACKAGES}
        text = json.dumps({**config, "format": FORMAT, "versions": versions}, indent=2, allow_nan=False)
        with replacing(self.config) as stream:
            stream.write(text.encode() + b"\n")
            stream.flush()  # on a full disk this fails, before the former run goes
            if self._starts_anew:
                self._clear()
        self._starts_anew = False

    def read_config(self) -> dict[str, Any]:
        """What `write_config` wrote, in this or another version of the same format; if it got lost, what the checkpoint says."""
        config = _config_of(self.config)
        if config is None and not self.config.exists():
            config = _config_in(self.checkpoint)
            told = f"{self.config}: is missing; settings and scene are those that {CHECKPOINT} names"
            warnings.warn(told, LostConfig, stacklevel=2)
        if config is None:
            hint = (
                "" if _config_in(self.checkpoint) is None else f"; {CHECKPOINT} says the same, and is asked where this is missing"
            )
            raise RunError(self.config, f"is no config.json of taichi_nerf{hint}")
        if config["format"] != FORMAT:
            version = config["versions"]["taichi_nerf"]
            raise RunError(
                self.config,
                f"was written by taichi_nerf {version} (format {config['format']}), this is {__version__} (format {FORMAT}); "
                f"use it with `pip install taichi-nerf=={version}`, or train anew with --overwrite",
            )
        missing = [key for key in NEEDED if key not in config]
        if missing:
            raise RunError(self.config, f"is damaged: {', '.join(missing)} are missing")
        return config

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl; it has a step. NaN and infinities become null."""
        metrics_file.append(self.metrics, row)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows, without a last line that a killed process left half-written."""
        return metrics_file.read(self.metrics)

    def truncate_metrics(self, after_step: int) -> None:
        """Drop the rows of later steps than this one: on resuming, what came after the checkpoint happens again."""
        metrics_file.truncate(self.metrics, after_step)

    def _files(self) -> list[Path]:
        """Every file of ours that exists, found without following links of folders."""
        files = [file for pattern in OURS for file in self.path.glob(pattern) if file.is_file()]
        files += [file for name in (self.checkpoint, self.metrics) for file in partials(name)]
        return [file for file in files if not any(folder.is_symlink() for folder in file.parents if self.path in folder.parents)]

    def _clear(self) -> None:
        """Remove the files of ours and the folders that are empty then.

        config.json stays, to be replaced in one step, and the checkpoint goes first: a process that is killed meanwhile leaves
        the former run without a checkpoint, which readers tell, and never one run's checkpoint beside another's settings.
        """
        files = [file for file in self._files() if file != self.config]
        for file in files:
            file.unlink()
        folders = {folder for file in files for folder in file.parents if self.path in folder.parents}
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            if not any(folder.iterdir()):
                folder.rmdir()


def expect_place(path: Path, overwrite: bool = False) -> None:
    """Refuse what is no place for a new run, whoever holds it: a file, a folder of others, a run unless it is to be replaced."""
    if path.is_symlink() and not path.exists():
        raise RunError(path, "is a link to what is not there")
    if path.exists() and not path.is_dir():
        raise RunError(path, "is a file; a run is a folder")
    _refuse_foreign(path)
    if (path / CONFIG).exists() and not overwrite:
        raise RunError(path, "holds a run already; --resume goes on with it, --overwrite replaces it")


def _refuse_foreign(path: Path) -> None:
    """A folder that has files and no config.json of ours is somebody else's."""
    if not path.is_dir() or _config_of(path / CONFIG) is not None:
        return
    names = {file.name for file in path.iterdir()} - {LOCK} - {file.name for file in partials(path / CONFIG)}
    if names:
        named = ", ".join(sorted(names)[:N_NAMED]) + (", …" if len(names) > N_NAMED else "")
        raise RunError(path, f"is no run and not empty (it holds {named}); choose another --out")


def _config_in(checkpoint: Path) -> dict[str, Any] | None:
    """config.json as a checkpoint has it, without versions."""
    try:
        about = json.loads(load_checkpoint(checkpoint)[1]["config"])
        return {**about, "format": FORMAT, "versions": {"taichi_nerf": __version__}}
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _config_of(file: Path) -> dict[str, Any] | None:
    """A config.json if it is one of taichi_nerf's, of any version."""
    try:
        config = json.loads(file.read_bytes())
        return config if isinstance(config["format"], int) and isinstance(config["versions"]["taichi_nerf"], str) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
