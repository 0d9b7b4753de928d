"""How xdist's processes share the tests out: whole files, apart for each backend, the longest first.

A process traces and compiles each kernel that it launches, and anew after each start of a backend: nearly half of what the tests
of an op take. Tests of a file launch the same kernels and share its fixtures, so they stay together; and those of another
backend than the processor come last, so that a process starts it once.
"""

from xdist.scheduler import LoadScopeScheduling

from taichi_nerf.runtime import PREFERENCE

FIRST = "cpu"
# About a minute or more each (`pytest --durations=100`): no process is to be left alone with one when the others have ended.
LONG = (
    "tests/priors/test_diffusion_prior.py",
    "tests/training/test_same_training.py",
    "tests/test_examples.py",
    "tests/test_waits.py",
    "tests/ops/test_contract.py",
    "tests/training/test_resident.py",
    "tests/training/test_pixelnerf.py",
    "tests/test_readme.py",
    "tests/viewer/test_browser.py",
    "tests/generator/test_builtin_model.py",
    "tests/test_demo.py",
    "tests/test_run_commands.py",
    "tests/test_prior_commands.py",
)


def in_order(items, backends):
    """The tests as they are to run; among equals as they were."""
    archs = [FIRST, *(arch for arch in backends if arch != FIRST)]

    def place(item):
        arch = item.callspec.params.get("running", FIRST) if hasattr(item, "callspec") else FIRST
        file = item.nodeid.partition("::")[0]
        return archs.index(arch), LONG.index(file) if file in LONG else len(LONG)

    return sorted(items, key=place)


class ByFileAndBackend(LoadScopeScheduling):
    def __init__(self, config, log=None):
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by the number of tests, most of which take no time

    def _split_scope(self, nodeid):
        """What goes to one process together."""
        file, _, test = nodeid.partition("::")
        arch = test.partition("[")[2].rstrip("]").partition("-")[0]  # a session's parameter stands first
        return f"{file} on {arch if arch in PREFERENCE else FIRST}"
