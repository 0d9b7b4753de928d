"""March, glance, look, composite and all their gradients, on the device: `rendering.render_rays`, launch by launch.

    rays = pipeline.rays(pixels, views)             origins and directions stay on the device
    seen = pipeline.render(rays, n_rays, chance)    torch sees colors over black, opacity and depth, with gradients
    loss(seen).backward()                           gradients of table and networks are on the device

What crosses is one row a ray, there and back. The host learns how many samples there were with that row, after the fact: it
guesses how much room the next rendering needs by what the last ones took (`rooms`). Where that was too little, it renders again.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from taichi_nerf.camera_rig import CameraRig
from taichi_nerf.kernels import (
    compositing,
    distortion,
    ray_generation,
    ray_marching,
    resident_exchange,
    resident_field,
    resident_rays,
)  # fmt: skip
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import plain, upload
from taichi_nerf.ops.fused_mlp import fused_mlp_, fused_mlp_backward_
from taichi_nerf.ops.once import once_differentiable
from taichi_nerf.ops.ray_marching import lattice_of
from taichi_nerf.rays import Rays, Samples
from taichi_nerf.rendering import Culling
from taichi_nerf.resident.arrays import March, RayArrays, Rendering, Size, room_for
from taichi_nerf.resident.field import Network, ResidentField
from taichi_nerf.resident.grid import ResidentGrid
from taichi_nerf.rooms import guess
from taichi_nerf.runtime import DeviceArray, current

LATER_SHARE = 4  # the second march has a quarter of the first one's room


class Chance(NamedTuple):
    """The random numbers of a rendering, and where they matter."""

    seed: int
    shift: bool  # rays by up to a step
    look: float  # how likely a sample of little weight is looked at all the same


class Seen(NamedTuple):
    """A rendering as torch sees it."""

    color: Tensor  # [n_rays, 3] over black
    opacity: Tensor  # [n_rays]
    depth: Tensor  # [n_rays]
    spread: Tensor | None  # [n_rays] `losses.spread` of each ray
    weights: Tensor | None  # [n_samples]
    samples: Samples | None
    n_marched: int


class Pipeline:
    def __init__(self, field: ResidentField, grid: ResidentGrid, culling: Culling, rig: CameraRig, n_samples: int):
        self.field, self.grid, self.culling = field, grid, culling
        self.n_samples = n_samples  # that a rendering is expected to march through
        self.cameras = [DeviceArray(x) for x in (rig.camera_to_worlds, rig.intrinsics, rig.distortion, rig.models)]
        center, radius = grid.sampler.ball()
        self.ball = DeviceArray(torch.cat([center, radius[None]]))
        self._took: tuple[int, list[int]] | None = None  # the last rendering: rays, and samples of first march, second, kept
        self._guess: list[int] | None = None  # of these, for the last rendering
        self._free: dict[Size, list[Rendering]] = {}
        self._free_rays: dict[int, list[RayArrays]] = {}

    @property
    def kept_per_ray(self) -> float:
        """Samples that the last rendering looked at in full."""
        if self._took is None:
            return 0.0
        n_rays, (*_, kept) = self._took
        return kept / n_rays

    # Rays

    def rays(self, pixels: Tensor, views: Tensor) -> RayArrays:  # [n, 2], [n] int32
        """Through these pixels of the scene's cameras."""
        rays = self._ray_arrays(len(views))
        out = (rays.origins.data, rays.directions.data, rays.radii.data)
        cameras = [array.data for array in self.cameras]
        launch(ray_generation.generate_rays, pixels.contiguous(), views.contiguous(), *cameras, 2.0**-22, *out)
        return rays

    def take(self, rays: Rays) -> RayArrays:
        """Rays that torch made."""
        taken = self._ray_arrays(len(rays.origins))
        given = (rays.origins.detach().contiguous(), rays.directions.detach().contiguous())
        launch(resident_exchange.take_rays, *given, taken.origins.data, taken.directions.data)
        return taken

    def _ray_arrays(self, n: int) -> RayArrays:
        free = self._free_rays.get(room_for(n))
        return free.pop() if free else RayArrays(room_for(n))

    def give_back(self, room: Rendering, rays: RayArrays) -> None:
        """For the next rendering of this size; rooms of other sizes are given up."""
        self._free = {room.size: [*self._free.get(room.size, []), room]}
        n = room.size.rays
        self._free_rays = {n: [*self._free_rays.get(n, []), rays]}

    # Rendering

    def render(
        self, rays: RayArrays, n_rays: int, chance: Chance, *, with_spread: bool = False, with_samples: bool = False
    ) -> Seen:
        """Gradients flow to table and networks."""
        anchor, room = self.field.table.anchor, self._room(n_rays)
        options = (rays, n_rays, chance, with_spread, with_samples)
        out, weights, (samples, counts) = _Rendered.apply(anchor, self, room, *options)
        while not self._had_room(room.size, n_rays, counts):
            room = self._room(n_rays)
            out, weights, (samples, counts) = _Rendered.apply(anchor, self, room, *options)
        marched, later = counts[:2]
        if not out.requires_grad:
            self.give_back(room, rays)
        spread = out[:, 5] if with_spread else None
        return Seen(out[:, :3], out[:, 3], out[:, 4], spread, weights, samples, marched + later)

    def _room(self, n_rays: int) -> Rendering:
        most = n_rays * self._most_per_ray()
        if self._took is None:  # nothing is known of this scene: room for what is meant to be marched, or all of a few rays
            first = min(room_for(most), room_for(2 * self.n_samples))
            later, kept = first // LATER_SHARE, first
        else:
            limits = (most, most, 2 * most)  # both marches may find as many as there are, and all of them be kept
            guessed = guess(n_rays, *self._took, self._guess)
            self._guess = list(map(min, limits, guessed))
            first, later, kept = (min(room_for(m), room_for(n, 2**12)) for m, n in zip(limits, guessed, strict=True))
            later = max(later, first // LATER_SHARE)
        size = Size(room_for(n_rays), first, later, kept)
        free = self._free.get(size)
        return free.pop() if free else Rendering(size, self.field.widths)

    def _had_room(self, size: Size, n_rays: int, counts: list[int]) -> bool:
        """Whether nothing was left out, which is seldom; and remember the counts, by which the next rendering gets its room."""
        marched, later, _, kept = counts
        self._took = n_rays, [marched, later, kept]
        return marched <= size.first and later <= size.later and kept <= size.kept

    def _most_per_ray(self) -> int:
        return self.grid.sampler.settings.max_samples_per_ray

    def forward(self, room: Rendering, rays: RayArrays, n_rays: int, chance: Chance, with_spread: bool) -> None:
        sampler, field, culling = self.grid.sampler, self.field, self.culling
        limits = (float(sampler.near), min(float(sampler.far), 1e30))
        out = (room.near.data, room.far.data, room.jitter.data)
        roaming = (int(sampler.is_roaming), self.ball.data, rays.origins.data)
        launch(resident_rays.begin_rays, n_rays, *limits, *roaming, int(chance.shift), chance.seed, *out)
        for march, near, further, is_first in (
            (room.march, room.near, room.further, True), (room.later, room.further, room.nowhere, False),
        ):  # fmt: skip
            self._march(room, march, rays, near, until_dark=is_first)
            self._encode(march, rays)
            self._network(field.density, march.features, march.geometry, march.total, march.room)
            launch(
                resident_rays.choose_visible, march.geometry.data, field.log_density, march.t_starts.data, march.t_ends.data,
                march.spans.data, culling.early_stop, culling.least_weight, chance.look, chance.seed ^ (1 + is_first),
                int(is_first), march.is_visible.data, room.spans.data, further.data,
            )  # fmt: skip
        self._keep(room, rays)
        self._network(field.color, room.inputs, room.color, room.total, room.size.kept)
        samples = [x.data for x in (room.density, room.color, room.t_starts, room.t_ends, room.spans, room.black)]
        out = tuple(x.data for x in (room.out_color, room.opacity, room.depth, room.weights))
        launch(compositing.composite_rays, *samples, 0.0, *out)
        if with_spread:
            starts, ends = (x.data for x in room.measured())
            launch(resident_exchange.spread_intervals, room.t_starts.data, room.t_ends.data, starts, ends)
            launch(distortion.distortion_loss, room.weights.data, starts, ends, room.spans.data, room.spread.data)

    def _march(self, room: Rendering, march: March, rays: RayArrays, near: DeviceArray, until_dark: bool) -> None:
        grid, settings = self.grid, self.grid.sampler.settings
        cone = self.grid.sampler.cone_angle
        given = [x.data for x in (rays.origins, rays.directions, near, room.far, room.jitter)]
        known = [plain(x) for x in (grid.bits, grid.spread, self.field.box, self._lattice(), grid.least_density)]
        dimming = until_dark and settings.most_thickness < float("inf")
        numbers = (settings.most_thickness if dimming else 1e30, settings.max_samples_per_ray, settings.n_cascades)
        kind = (settings.resolution, cone > 0, grid.contracted, dimming)
        out = [x.data for x in (march.beginnings, march.spans, march.t_starts, march.t_ends, march.ray_indices)]
        launch(ray_marching.march_rays, *given, *known, *numbers, *kind, False, *out)
        launch(resident_rays.lay_out, march.room, room.sums.data, march.spans.data, march.total.data)
        launch(ray_marching.march_rays, *given, *known, *numbers, *kind, True, *out)

    def _lattice(self) -> DeviceArray | Tensor:
        """The steps along rays as kernels take them, uploaded when they change: in some trainings that is at every step."""
        sampler = self.grid.sampler
        numbers = lattice_of(sampler.step_size, sampler.cone_angle, sampler.settings.max_step)
        if getattr(self, "_numbers", None) != numbers:
            steps = upload(numbers, torch.float32, current().torch_device)  # on CUDA filling a DeviceArray would wait
            self._numbers, self._steps = numbers, DeviceArray(steps) if current().copies else steps
        return self._steps

    def _encode(self, march: March, rays: RayArrays) -> None:
        field = self.field
        given = [x.data for x in (rays.origins, rays.directions, march.t_starts, march.t_ends, march.ray_indices, field.box)]
        levels = (field.table.data, field.levels.data, field.scales.data, field.n_features)
        launch(
            resident_field.encode_samples, march.total.data, *given, field.contracted, *levels, march.features.data
        )  # fmt: skip

    @staticmethod
    def _network(network: Network, rows: DeviceArray, out: DeviceArray, total: DeviceArray, room: int) -> None:
        options: dict[str, Any] = {**network.options, "workspace": network.workspace(room), "counted": total}
        fused_mlp_(rows, network.weights, out, **options)

    def _keep(self, room: Rendering, rays: RayArrays) -> None:
        launch(resident_rays.lay_out, room.size.kept, room.sums.data, room.spans.data, room.total.data)
        marches = [
            x.data
            for march in (room.march, room.later)
            for x in (march.t_starts, march.t_ends, march.is_visible, march.spans)
        ]  # fmt: skip
        out = [x.data for x in (room.t_starts, room.t_ends, room.ray_indices, room.sources)]
        launch(resident_rays.keep_visible, *marches, room.spans.data, *out)
        known = [x.data for march in (room.march, room.later) for x in (march.features, march.geometry)]
        seen_from = (rays.directions.data, room.ray_indices.data, self.field.log_density, self.field.degree)
        out = [x.data for x in (room.features, room.geometry, room.inputs, room.density)]
        launch(resident_rays.look_closer, room.total.data, room.sources.data, *known, *seen_from, *out)

    # Gradients

    def backward(self, room: Rendering, rays: RayArrays, grad: Tensor, of_weights: Tensor | None) -> None:
        """From those of the rendered rays to those of table and networks, which are added to."""
        field, (of_color, of_opacity, of_depth, of_spread) = self.field, room.grad_rays
        launch(resident_exchange.hand_over_adjoint, grad, *(x.data for x in room.grad_rays))
        if grad.shape[1] > resident_exchange.SPREAD:
            samples = [x.data for x in (room.weights, *room.measured(), room.spans)]
            out = [x.data for x in (room.grad_weights, *room.unused)]
            launch(distortion.distortion_loss_adjoint, *samples, of_spread.data, *out)
        else:
            room.grad_weights.data.fill(0)
        if of_weights is not None:
            launch(resident_exchange.take_gradients, of_weights, room.grad_weights.data)
        samples = [x.data for x in (room.density, room.color, room.t_starts, room.t_ends, room.spans, room.black, room.weights)]
        given = [x.data for x in (of_color, of_opacity, of_depth, room.grad_weights)]
        out = [room.of_density.data, room.color.grad, *(x.data for x in room.unused), room.of_background.data]
        launch(compositing.composite_rays_adjoint, *samples, 0.0, *given, *out)
        kept = {"counted": room.total}
        for network, rows, values in ((field.color, room.inputs, room.color), (field.density, room.features, room.geometry)):
            if network is field.density:
                inputs = (room.density.data, room.of_density.data, room.inputs.grad, room.geometry.grad)
                launch(resident_rays.look_closer_adjoint, room.total.data, *inputs)
            options: dict[str, Any] = {**network.options, **kept, "workspace": network.workspace(room.size.kept)}
            fused_mlp_backward_(rows, network.weights, values, **options)
        places = [x.data for x in (rays.origins, rays.directions, room.t_starts, room.t_ends, room.ray_indices, field.box)]
        levels = (field.levels.data, field.scales.data, field.n_features)
        launch(
            resident_field.encode_samples_adjoint, room.total.data, *places, field.contracted, room.features.grad, *levels,
            field.table.grad,
        )  # fmt: skip


class _Rendered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor, pipeline, room, rays, n_rays, chance, with_spread, with_samples):  # type: ignore[no-untyped-def]
        pipeline.forward(room, rays, n_rays, chance, with_spread)
        device = current().torch_device
        out = torch.empty(n_rays, resident_exchange.SPREAD + with_spread, device=device)
        counts = torch.empty(4, dtype=torch.int32, device=device)
        given = (room.out_color, room.opacity, room.depth, room.spread, room.march.total, room.later.total, room.total)
        launch(resident_exchange.hand_over, *(x.data for x in given), out, counts)
        told = counts.tolist()
        weights = samples = None
        if with_samples:
            weights, samples = _samples(room, n_rays, told[2])
        ctx.given = (pipeline, room, rays)
        return out, weights, (samples, told)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad, of_weights, _):  # type: ignore[no-untyped-def]
        pipeline, room, rays = ctx.given
        of_weights = None if of_weights is None or not len(of_weights) else of_weights.contiguous()
        pipeline.backward(room, rays, grad.contiguous(), of_weights)
        pipeline.give_back(room, rays)
        return (None,) * 8


def _samples(room: Rendering, n_rays: int, n: int) -> tuple[Tensor, Samples]:
    """The weights of single samples and where these are, for terms of the loss that ask."""
    device = current().torch_device
    values, ray_indices = torch.zeros(max(n, 1), 3, device=device), torch.zeros(max(n, 1), dtype=torch.int32, device=device)
    spans = torch.empty(n_rays, 2, dtype=torch.int32, device=device)
    given = [x.data for x in (room.weights, room.t_starts, room.t_ends, room.ray_indices, room.spans)]
    launch(resident_exchange.hand_over_samples, *given, values, ray_indices, spans)
    weights, t_starts, t_ends = (column.contiguous() for column in values[:n].unbind(-1))
    return weights, Samples(t_starts, t_ends, ray_indices[:n], spans)
