"""`taichi-nerf` in processes of its own that need not import it: forks of one that has imported it and started nothing."""

import multiprocessing
from multiprocessing.process import BaseProcess

from taichi_nerf.apps.main import main

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
CONTEXT = multiprocessing.get_context("forkserver" if CAN_FORK else "spawn")
if CAN_FORK:  # with what `train` imports when it needs it
    CONTEXT.set_forkserver_preload(["taichi_nerf.apps.main", "taichi_nerf.training.run"])


def started(*words: object) -> BaseProcess:
    """The command in a process that may be killed."""
    process = CONTEXT.Process(target=_command, args=([str(word) for word in words],))
    process.start()
    return process


def run(*words: object) -> None:
    """The command to its end, which has to be a good one."""
    process = started(*words)
    process.join()
    assert process.exitcode == 0, words


def _command(words: list[str]) -> None:
    """By name, for pickle."""
    main(words)
