"""Real scenes, which are no part of the project."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def data_folder(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no real data: ../shared/data/{name} is absent")
    return SHARED / name
