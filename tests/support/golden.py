"""Three 32 x 32 pictures that run most kernels one after another, as data flows in training.

`draw(name, room, …)` takes `taichi_nerf.ops` or `taichi_nerf.reference` for its room: both have the same functions. The stored
PNGs are drawn by the reference in 64 bits. `python tests/support/golden.py` draws them again; look at them before committing.
"""

import math
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "golden"
SIZE = 32
NAMES = ("soft_ball", "hash_shell", "far_cascades")


def draw(name: str, room: ModuleType, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[SIZE, SIZE, 3] in [0, 1]."""
    return {"soft_ball": soft_ball, "hash_shell": hash_shell, "far_cascades": far_cascades}[name](room, device, dtype)


def rays(room: ModuleType, position: list[float], device: torch.device, dtype: torch.dtype, model: int, lens: list[float]):
    """Rays of a camera that looks at the origin through a lens."""
    grid = torch.arange(SIZE, dtype=dtype, device=device) + 0.5
    pixels = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).reshape(-1, 2)
    eye = torch.tensor(position, dtype=torch.float64)
    forward = -eye / eye.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    right = right / right.norm()
    pose = torch.stack([right, torch.linalg.cross(forward, right), forward, eye], -1).to(device, dtype)
    camera = torch.zeros(len(pixels), dtype=torch.int32, device=device)
    intrinsics = torch.tensor([[30.0, 30.0, SIZE / 2, SIZE / 2]], dtype=dtype, device=device)
    distortion = torch.tensor([lens], dtype=dtype, device=device)
    models = torch.tensor([model], dtype=torch.int32, device=device)
    return room.ray_generation.generate_rays(pixels, camera, pose[None], intrinsics, distortion, models)[:2]


def render(room, origins, directions, field, occupancy, box, background, **march) -> Tensor:
    """March, ask the field, composite."""
    reach = box * march.get("reach", 1)
    march.pop("reach", None)
    t_near, t_far = room.ray_box.intersect_boxes(origins, directions, reach)
    t_starts, t_ends, indices, spans = room.ray_marching.march_rays(origins, directions, t_near, t_far, occupancy, box, **march)
    positions = room.ray_marching.sample_positions(origins, directions, t_starts, t_ends, indices, spans)
    density, color = field(positions, directions[indices.long()])
    behind = origins.new_tensor(background).expand(len(origins), 3).contiguous()
    return room.compositing.composite_rays(density, color, t_starts, t_ends, spans, behind)[0].view(SIZE, SIZE, 3)


def full(resolution: int, device: torch.device, n_cascades: int = 1) -> Tensor:
    return torch.full((n_cascades * resolution**3 // 32,), -1, dtype=torch.int32, device=device)


def soft_ball(room, device, dtype) -> Tensor:
    """Fog whose color depends on where it is seen from, through an OpenCV lens."""
    origins, directions = rays(room, [1.6, 1.0, 1.9], device, dtype, 1, [-0.2, 0.05, 0, 0, 0, 0, 0.003, -0.004])

    def field(positions, towards):
        density = 6 * torch.sigmoid(20 * (0.7 - positions.norm(dim=-1)))
        harmonics = room.spherical_harmonics.spherical_harmonics(towards, degree=2)
        return density, torch.sigmoid(4 * harmonics[:, [1, 4, 6]] + positions)

    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]], dtype=dtype, device=device)
    return render(room, origins, directions, field, full(32, device), box, [1.0, 1, 1], step_size=0.03, resolution=32)


def hash_shell(room, device, dtype) -> Tensor:
    """A hash grid of random features in a hollow shell of occupied cells, through a fisheye."""
    origins, directions = rays(room, [0.9, 0.8, -1.0], device, dtype, 2, [0.05, -0.01, 0, 0, 0, 0, 0, 0])
    layout = {"n_levels": 4, "base_resolution": 4, "max_resolution": 24, "log2_table_size": 10}
    from taichi_nerf.reference.hash_grid import level_layout

    n_entries = sum(level.size for level in level_layout(**layout))
    table = 2 * torch.rand(n_entries, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 1
    table = table.to(device, dtype)
    axis = (torch.arange(32) + 0.5) / 16 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    occupied = ((radius > 0.55) & (radius < 0.75)).view(-1, 32).long()
    words = (occupied << torch.arange(32)).sum(-1)
    occupancy = torch.where(words >= 2**31, words - 2**32, words).int().to(device)

    def field(positions, towards):
        features = room.hash_grid.hash_grid((positions + 1) / 2, table, **layout)
        return torch.exp(2 + features[:, 0] + features[:, 2]), torch.sigmoid(3 * features[:, [1, 3, 5]])

    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]], dtype=dtype, device=device)
    return render(room, origins, directions, field, occupancy, box, [0.0, 0, 0], step_size=0.02, resolution=32)


def far_cascades(room, device, dtype) -> Tensor:
    """Sine waves over a ground plane that reaches four boxes far, with steps that grow."""
    origins, directions = rays(room, [0.3, 0.5, 1.5], device, dtype, 0, [0.0] * 8)

    def field(positions, towards):
        waves = room.frequency_encoding.frequency_encoding(
            positions, n_frequencies=2, base_frequency=math.pi, include_identity=False
        )
        density = 40 * torch.sigmoid(30 * (-0.4 - positions[:, 1] + 0.1 * waves[:, 0]))
        return density, 0.5 + 0.4 * waves[:, [2, 3, 8]]

    box = torch.tensor([[-1.0, -1, -1], [1, 1, 1]], dtype=dtype, device=device)
    options = {"step_size": 0.02, "cone_angle": 1 / 64, "max_step": 0.5, "resolution": 32, "n_cascades": 3, "reach": 4}
    return render(room, origins, directions, field, full(32, device, 3), box, [0.6, 0.8, 1.0], **options)


def main() -> None:
    import imageio.v3 as imageio

    from taichi_nerf import reference

    FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        picture = draw(name, reference, torch.device("cpu"), torch.float64)
        imageio.imwrite(FOLDER / f"{name}.png", (picture.clamp(0, 1) * 255).round().byte().numpy())


if __name__ == "__main__":
    main()
