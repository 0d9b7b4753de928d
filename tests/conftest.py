"""Fixtures: one backend after another, and a seeded generator.

`TAICHI_NERF_ARCHS=cpu,vulkan` names the backends to test, and then one that does not work is a failure. Without it the
suite takes cpu, vulkan, cuda and metal, and skips, with the reason, what this machine lacks.
"""

import os

import hypothesis
import pytest
import sharing
import small_run
import torch

from taichi_nerf import runtime

# The same examples every time, and no test that fails because a machine is slow.
hypothesis.settings.register_profile(
    "ours", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ours")

ASKED = [arch.strip() for arch in os.environ.get("TAICHI_NERF_ARCHS", "").split(",") if arch.strip()]
ARCHS = ASKED or ["cpu", "vulkan", "cuda", "metal"]


@pytest.hookimpl(trylast=True)  # after pytest's own order
def pytest_collection_modifyitems(items):
    items[:] = sharing.in_order(items, ARCHS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return sharing.ByFileAndBackend(config, log) if config.option.dist == "load" else None


@pytest.fixture(scope="session", params=ARCHS)
def running(request):
    """A session-wide parameter, so pytest runs all tests of a backend before it starts the next."""
    return request.param


@pytest.fixture
def backend(running):
    """The backend under test, started."""
    found = runtime.probe(running)
    if not found.works and not ASKED:
        pytest.skip(f"{running}: {found.reason}")
    started = runtime.start(running)
    torch.set_default_device(started.torch_device if started.arch == "cuda" else None)
    yield started
    torch.set_default_device(None)


@pytest.fixture
def cpu():
    """The CPU backend, for what needs 64 bits or no particular backend."""
    if ASKED and "cpu" not in ASKED:
        pytest.skip("TAICHI_NERF_ARCHS leaves out cpu")
    return runtime.start("cpu")


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory):
    """The folder of `small_run`'s scene, for all who leave it as it is."""
    runtime.start("cpu")
    return small_run.make(tmp_path_factory.mktemp("small") / "objects")


@pytest.fixture
def generator():
    """On the default device: tests that take a backend as well name it first."""
    return torch.Generator(torch.empty(0).device).manual_seed(20)
