"""The parameters of a hash grid field on the device: the table, and the weights of each network behind each other.

`push` takes them from the field, a torch module, and `pull` brings them back, so checkpoints and everything that is not training
go on as anywhere.
"""

from typing import Any

import torch
from torch import Tensor

from taichi_nerf.fields.hash_grid_field import HashGridField, HashGridSettings
from taichi_nerf.fields.mlp import Mlp
from taichi_nerf.kernels import resident_exchange, resident_field
from taichi_nerf.launch import launch
from taichi_nerf.ops.fused_mlp import Workspace
from taichi_nerf.ops.hash_grid import level_layout
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.resident.arrays import Widths
from taichi_nerf.runtime import DeviceArray, current

WIDEST, DEEPEST = 64, 3  # what the fused networks take: units of a layer, hidden layers


class Network:
    """The weights of a network without biases."""

    def __init__(self, mlp: Mlp, output: str):
        self.matrices = list(mlp.weights)
        self.widths = (self.matrices[0].shape[1], *(len(matrix) for matrix in self.matrices))
        self.output = output
        self.weights = DeviceArray(self._flat(self.matrices), requires_grad=True)
        self._workspace: Workspace | None = None
        self._n = 0

    def workspace(self, n: int) -> Workspace:
        if self._workspace is None or n > self._n:
            self._workspace, self._n = Workspace(self.widths, n), n
        return self._workspace

    @property
    def options(self) -> dict[str, Any]:
        return {"widths": self.widths, "output": self.output}

    def as_they_are(self) -> Tensor:
        """The weights [n] of now, in torch; a loss of them adds its gradient to that on the device."""
        found: Tensor = _AsTheyAre.apply(self.weights.anchor, self.weights)
        return found

    @staticmethod
    def _flat(matrices: list[Tensor]) -> Tensor:
        return torch.cat([matrix.detach().reshape(-1) for matrix in matrices])

    def push(self) -> None:
        self.weights.copy_(self._flat(self.matrices))

    def pull(self) -> None:
        with torch.no_grad():
            parts = self.weights.to_torch().split([matrix.numel() for matrix in self.matrices])
            for matrix, part in zip(self.matrices, parts, strict=True):
                matrix.copy_(part.view_as(matrix))


class _AsTheyAre(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor, weights):  # type: ignore[no-untyped-def]
        ctx.weights = weights
        return weights.to_torch()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        launch(resident_exchange.take_gradients, grad.contiguous(), ctx.weights.grad)
        return None, None


class ResidentField:
    def __init__(self, field: HashGridField):
        settings = field.settings
        self.field, self.n_features, self.degree = field, settings.n_features, settings.harmonics
        self.log_density, self.contracted = settings.log_density, field.contraction == "sphere"
        layout = level_layout(**field.layout, per_level_scale=None)
        rows = [[level.offset, level.size, level.resolution, level.is_hashed] for level in layout]
        self.levels = DeviceArray(torch.tensor(rows, dtype=torch.int32))
        self.scales = DeviceArray(torch.tensor([level.scale for level in layout], dtype=torch.float32))
        self.box = DeviceArray(field.box.float())
        self.table = DeviceArray(field.table.detach(), requires_grad=True)
        self.density, self.color = Network(field.density_mlp, "none"), Network(field.color_mlp, "sigmoid")
        self.widths = Widths(self.density.widths[0], self.density.widths[-1], self.color.widths[0])
        self._health = torch.empty(1, device=current().torch_device)

    def push(self) -> None:
        self.table.copy_(self.field.table.detach())
        self.density.push()
        self.color.push()

    def pull(self) -> None:
        with torch.no_grad():
            self.field.table.copy_(self.table.to_torch())
        self.density.pull()
        self.color.pull()

    def zero_grad(self) -> None:
        for array in (self.table, self.density.weights, self.color.weights):
            array.zero_grad()

    def has_finite_gradients(self) -> bool:
        launch(resident_field.find_not_finite, self.density.weights.grad, self.color.weights.grad, self._health)
        return bool(self._health[0] == 0)


def misfit(settings: HashGridSettings) -> str | None:
    """Why a field of these settings cannot live on the device, if it cannot."""
    n_seen = settings.n_geometry + (settings.harmonics + 1) ** 2
    widest = max(settings.n_levels * settings.n_features, settings.n_hidden, settings.n_geometry, n_seen)
    if widest > WIDEST or not 1 <= settings.n_color_layers <= DEEPEST:
        return f"its networks take up to {WIDEST} numbers and {DEEPEST} hidden layers, not {widest} and {settings.n_color_layers}"
    return None
