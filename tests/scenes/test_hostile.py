"""Whatever is on disk, a scene opens or is refused in one line: never another exception, never a hang, never all of the memory.

Every reader's sample scene is broken in seeded random ways. `TAICHI_NERF_FUZZ=50` breaks it 50 times as often.
"""

import importlib
import os
import resource
import shutil
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from taichi_nerf.scenes import SceneError, load_scene

import mutations

SAMPLES = sorted(file.stem for file in Path(mutations.__file__).parent.glob("sample_*.py"))
ROUNDS = 100 * int(os.environ.get("TAICHI_NERF_FUZZ", "1"))
LONGEST = 5.0  # seconds of a processor for a scene of a few tiny pictures; measured 0.3
LARGEST_GROWTH = 2**30  # bytes of the process over all rounds of a sample


def make_sample(name: str, folder: Path) -> dict:
    try:
        importlib.import_module(name).make(folder)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")
    return mutations.read(folder)


def open_fully(folder: Path) -> None:
    """What every command does with a scene: open it, and look at a picture of each sort."""
    scene = load_scene(folder)
    assert len(scene.names) == len(scene.cameras) == len(scene.images) > 0
    for name in scene.cameras.__dataclass_fields__:
        assert np.isfinite(getattr(scene.cameras, name)).all(), name
    assert np.isfinite(scene.bounds.box).all()
    assert 0 < scene.bounds.near < scene.bounds.far < np.inf
    for pictures in (scene.images, scene.masks, scene.depths.images if scene.depths else None):
        if pictures is not None:
            assert pictures[len(pictures) - 1].ndim == 3


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_opens(name, tmp_path):
    make_sample(name, tmp_path / "scene")
    open_fully(tmp_path / "scene")


@pytest.mark.parametrize("name", SAMPLES)
def test_a_broken_scene_opens_or_is_refused_in_one_line(name, tmp_path):
    original = make_sample(name, tmp_path / "original")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failures, refused = [], 0
    for seed in range(ROUNDS):
        scene = dict(original)
        ways = mutations.mutate(scene, np.random.default_rng([seed, *name.encode()]))
        folder = tmp_path / "broken"
        folder.mkdir()
        mutations.write(scene, folder)
        start = time.process_time()  # a busy machine makes nothing slow
        try:
            open_fully(folder)
        except SceneError as error:
            refused += 1
            if "\n" in str(error) or len(str(error)) > 1000:
                failures.append(f"seed {seed} ({', '.join(ways)}): no single line: {str(error)[:300]!r}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "taichi_nerf" in frame.filename]
            at = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-2:] or [where])
            failures.append(f"seed {seed} ({', '.join(ways)}): {type(error).__name__}: {str(error)[:160]} at {at}")
        seconds = time.process_time() - start
        if seconds > LONGEST:
            failures.append(f"seed {seed} ({', '.join(ways)}): {seconds:.1f} s")
        shutil.rmtree(folder)
    assert not failures, f"{len(failures)} of {ROUNDS} rounds:\n" + "\n".join(failures)
    assert refused > ROUNDS / 10  # else nothing was broken
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < LARGEST_GROWTH
