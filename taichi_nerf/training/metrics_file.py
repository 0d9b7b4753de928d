"""metrics.jsonl: one JSON object a line, each with a step, whole lines only."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from taichi_nerf.training.atomic import naming, replacing


def append(file: Path, row: Mapping[str, Any]) -> None:
    """Add a line, behind the last whole one. What is not finite becomes null, since JSON has no word for it."""
    if not isinstance(row.get("step"), int):
        raise ValueError(f"{file}: a row of metrics needs its step, got {list(row)}")
    line = json.dumps(_finite(row), allow_nan=False).encode() + b"\n"
    with naming(file), open(file, "a+b") as stream:
        _drop_half_line(stream)
        stream.write(line)


def read(file: Path) -> list[dict[str, Any]]:
    """All whole rows. A last line without its end was cut off when a process was killed, and does not count."""
    return [row for _, row in _whole_rows(file)] if file.exists() else []


def truncate(file: Path, after_step: int) -> None:
    """Keep the rows up to this step, and none that is half."""
    if not file.exists():
        return
    with replacing(file) as stream:
        stream.writelines(line for line, row in _whole_rows(file) if row["step"] <= after_step)


def _whole_rows(file: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines with their ends, and what they say, one after the other: days of training are hundreds of thousands."""
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError(f"{file}: line {number}: expected a JSON object with a step; remove the line to go on")
            yield line, row


def _drop_half_line(stream: BinaryIO) -> None:
    """Cut off what follows the last end of a line."""
    if stream.seek(0, os.SEEK_END) == 0:
        return
    stream.seek(-1, os.SEEK_END)
    if stream.read(1) != b"\n":
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
