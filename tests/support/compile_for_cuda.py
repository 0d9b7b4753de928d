"""Launch the kernels of the families named as arguments on a CUDA whose driver computes nothing (`silent_driver.c`).

They are compiled, and that is all: what comes out of an op is memory as it lay there. Prints the names of those launched.
"""

import os
import sys

import torch

from taichi_nerf import runtime
from taichi_nerf.hotswap import gradients_of, random_cotangents
from taichi_nerf.launch import launches

from contract import examples_of, pair


def start():
    """With torch's tensors on the host: this torch need not know CUDA."""
    os.environ["TI_OFFLINE_CACHE"] = "0"
    runtime.probe = lambda arch: runtime.Probe(arch, works=True, device_name="silent")
    runtime.Backend.torch_device = property(lambda self: torch.device("cpu"))
    runtime.start("cuda")


def launch_all(families):
    for family in families:
        for example in {example.function: example for example in examples_of(family, 4)}.values():
            op, _ = pair(family, example)
            op(**example.arguments)
            if example.differentiable:
                cotangents = random_cotangents(op, example.arguments, example.differentiable)
                gradients_of(op, example.arguments, example.differentiable, cotangents)


if __name__ == "__main__":
    start()
    with launches() as kernels:
        launch_all(sys.argv[1:])
    print(*sorted(kernel.__name__ for kernel in kernels))
