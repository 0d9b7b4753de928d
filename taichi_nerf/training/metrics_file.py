"""metrics.jsonl: one JSON object a line, each with a step, whole lines only."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from taichi_nerf.training.atomic import replacing


def append(file: Path, row: Mapping[str, Any]) -> None:
    """Add a line, behind the last whole one. What is not finite becomes null, since JSON has no word for it."""
    if not isinstance(row.get("step"), int):
        raise ValueError(f"{file}: a row of metrics needs its step, got {list(row)}")
    line = json.dumps(_finite(row), allow_nan=False).encode() + b"\n"
    with open(file, "a+b") as stream:
        _drop_half_line(stream)
        stream.write(line)


def read(file: Path) -> list[dict[str, Any]]:
    """All whole rows. A last line without its end was cut off when a process was killed, and does not count."""
    rows = []
    for number, line in enumerate(_whole_lines(file), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise ValueError(f"{file}: line {number}: expected a JSON object with a step; remove the line to go on")
        rows.append(row)
    return rows


def truncate(file: Path, after_step: int) -> None:
    """Keep the rows up to this step, and none that is half."""
    if not file.exists():
        return
    lines = [line for line, row in zip(_whole_lines(file), read(file), strict=True) if row["step"] <= after_step]
    with replacing(file) as stream:
        stream.writelines(line + b"\n" for line in lines)


def _whole_lines(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


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
