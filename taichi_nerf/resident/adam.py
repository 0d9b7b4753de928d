"""torch's Adam over parameters that live on the device: the same steps, the same state in checkpoints, moments on the device.

The table's moments are dense, as torch has them: a checkpoint goes on on any backend.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_nerf.ops.adam import adam_
from taichi_nerf.optimiser import Adam
from taichi_nerf.resident.field import ResidentField
from taichi_nerf.runtime import DeviceArray


class Part(NamedTuple):
    """An array on the device, and the parameters that lie in it one after the other."""

    values: DeviceArray
    mean: DeviceArray
    mean_square: DeviceArray
    parameters: list[Tensor]


class ResidentAdam(Adam):
    def __init__(self, groups: Iterable[dict[str, Any]], field: ResidentField, **options: Any):
        super().__init__(groups, **options)
        self._step_supports_amp_scaling = False  # of torch's: whether a step is left out that `found_inf` says is none
        self.field, self.n_steps, self._is_clear = field, 0, False
        networks = [self._part(network.weights, network.matrices) for network in (field.density, field.color)]
        self.parts = {"table": [self._part(field.table, [field.field.table])], "networks": networks}

    @staticmethod
    def _part(values: DeviceArray, parameters: list[Tensor]) -> Part:
        zeros = torch.zeros(values.shape)
        return Part(values, DeviceArray(zeros), DeviceArray(zeros), parameters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """A step leaves gradients of zero; what is left after none is cleared here."""
        if not self._is_clear:
            self.field.zero_grad()
        self._is_clear = False

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.n_steps += 1
        for group in self.param_groups:
            rates = {"learning_rate": group["lr"], "betas": tuple(group["betas"]), "epsilon": group["eps"]}
            for part in self.parts[group["name"]]:
                moments = (part.mean, part.mean_square)
                adam_(part.values, *moments, step=self.n_steps, weight_decay=group["weight_decay"], **rates)
        self._is_clear = True

    def state_dict(self) -> dict[str, Any]:
        """torch's, with the moments brought back."""
        self.state.clear()
        if self.n_steps:
            for part in (part for parts in self.parts.values() for part in parts):
                sizes = [parameter.numel() for parameter in part.parameters]
                moments = [array.to_torch().reshape(-1).split(sizes) for array in (part.mean, part.mean_square)]
                for parameter, mean, mean_square in zip(part.parameters, *moments, strict=True):
                    self.state[parameter] = {
                        "step": torch.tensor(float(self.n_steps), device=parameter.device),
                        "exp_avg": mean.view_as(parameter),
                        "exp_avg_sq": mean_square.view_as(parameter),
                    }
        found = super().state_dict()
        self.state.clear()  # the device has it
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.n_steps, self._is_clear = 0, False
        for part in (part for parts in self.parts.values() for part in parts):
            for array, name in ((part.mean, "exp_avg"), (part.mean_square, "exp_avg_sq")):
                known = [self.state[p][name] if p in self.state else torch.zeros_like(p) for p in part.parameters]
                array.copy_(torch.cat([values.detach().reshape(-1) for values in known]).view(array.shape))
            for parameter in part.parameters:
                self.n_steps = max(self.n_steps, int(self.state[parameter]["step"]) if parameter in self.state else 0)
        self.state.clear()
