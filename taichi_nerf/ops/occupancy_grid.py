"""The occupancy grid's bookkeeping. See `kernels/occupancy_grid.py` for the layout and the rules. Nothing has gradients.

`density_ema` and bits may be tensors or DeviceArrays; on copying backends, where the grid lives for a whole training, they
should be the latter: update with `update_density_` and pack into `out`.
"""

import torch
from torch import Tensor

from taichi_nerf.kernels import occupancy_grid as kernels
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import LARGEST, check, plain
from taichi_nerf.runtime import DeviceArray, current


def cell_positions(
    cells: Tensor,  # [n_cells] int32
    jitter: Tensor,  # [n_cells, 3] in [0, 1), 0.5 is the centre
    aabb: Tensor,  # [2, 3] the box of cascade 0
    *,
    resolution: int = 128,
    contraction: str = "none",
) -> Tensor:
    """A point in each of the cells, [n_cells, 3]; `jitter` tells where in the cell.

    The corners of the contracted cube, beyond the ball of radius 2, stand for no place: they go 512 half-sizes out.
    """
    _check_grid("cell_positions", resolution, contraction)
    check(
        "cell_positions",
        cells=(cells, "n_cells", torch.int32),
        jitter=(jitter, "n_cells 3"),
        aabb=(aabb, "2 3"),
    )
    positions = torch.empty_like(jitter, memory_format=torch.contiguous_format, requires_grad=False)
    if len(cells):
        launch(kernels.cell_positions, plain(cells), plain(jitter), plain(aabb), resolution, contraction == "sphere", positions)
    return positions


def update_density(
    density_ema: Tensor,  # [n_cells]
    cells: Tensor,  # [n_visited] int32
    density: Tensor,  # [n_visited]
    *,
    decay: float = 0.95,
) -> Tensor:
    """A new density_ema: max(decay * old, density) in the visited cells, the old value in all others.

    Cells may repeat: they decay once and take the largest. A density that is NaN or infinite is ignored, and so are cells
    that are marked invisible or lie outside of the grid.
    """
    check("update_density", lasting=("density_ema",), density_ema=(density_ema, "n_cells"))
    new = density_ema.to_torch() if isinstance(density_ema, DeviceArray) else plain(density_ema).clone()
    update_density_(new, cells, density, decay=decay)
    return new


def update_density_(
    density_ema: Tensor,  # [n_cells] a contiguous Tensor or DeviceArray, changed in place
    cells: Tensor,  # [n_visited] int32
    density: Tensor,  # [n_visited]
    *,
    decay: float = 0.95,
) -> None:
    """`update_density` in place."""
    check(
        "update_density",
        lasting=("density_ema",),
        density_ema=(density_ema, "n_cells"),
        cells=(cells, "n_visited", torch.int32),
        density=(density, "n_visited"),
    )
    if isinstance(density_ema, Tensor) and not density_ema.is_contiguous():
        raise ValueError("update_density_: density_ema has to be contiguous to be changed in place")
    if len(cells):
        factor = torch.full((1,), decay, dtype=density.dtype, device=density.device)
        array = density_ema.data if isinstance(density_ema, DeviceArray) else density_ema.detach()
        before = density.new_empty(density.shape)
        launch(kernels.update_density, plain(cells), plain(density), factor, before, array)


def pack_occupancy(
    density_ema: Tensor,  # [n_cells] a Tensor or DeviceArray
    *,
    threshold: float,
    out: Tensor | None = None,  # [n_cells / 32] int32, a contiguous Tensor or DeviceArray
) -> Tensor:
    """Bits of the cells with density_ema > min(threshold, mean over visible cells), [n_cells / 32] int32.

    If that leaves none, all visible cells are occupied: a grid that has gone empty starts over. A cell whose density is not
    a number is occupied, and left out of the mean. Fills and returns `out` if given.
    """
    sizes = check("pack_occupancy", lasting=("density_ema",), density_ema=(density_ema, "n_cells"))
    if sizes["n_cells"] % 32:
        raise ValueError(f"pack_occupancy: density_ema has to hold a multiple of 32 cells, got {sizes['n_cells']}")
    check("pack_occupancy", lasting=("out",), out=(out, str(sizes["n_cells"] // 32), torch.int32))
    if isinstance(out, Tensor) and not out.is_contiguous():
        raise ValueError("pack_occupancy: out has to be contiguous")
    array = plain(density_ema)
    like = torch.empty(0, dtype=density_ema.dtype, device=current().torch_device)
    bits = torch.empty(sizes["n_cells"] // 32, dtype=torch.int32, device=like.device) if out is None else out
    if sizes["n_cells"]:
        sums, largest = like.new_empty(kernels.N_PARTS), like.new_empty(kernels.N_PARTS)
        counts = torch.empty(kernels.N_PARTS, dtype=torch.int32, device=like.device)
        launch(kernels.visible_statistics, array, sums, counts, largest)
        limit = (sums.sum() / counts.sum().clamp_min(1)).clamp_max(threshold)
        limit = torch.where(largest.max() > limit, limit, -1.0)[None]
        launch(kernels.pack_occupancy, array, limit, plain(bits))
    return bits


def mark_invisible_cells(
    density_ema: Tensor,  # [n_cascades * resolution^3]
    camera_to_worlds: Tensor,  # [n_cameras, 3, 4] OpenCV
    intrinsics: Tensor,  # [n_cameras, 4] focal lengths x, y and principal point x, y in pixels
    image_sizes: Tensor,  # [n_cameras, 2] int32: width, height
    aabb: Tensor,  # [2, 3] the box of cascade 0
    *,
    near: float = 0.0,
    resolution: int = 128,
    contraction: str = "none",
) -> Tensor:
    """A new density_ema with -1 in the cells that no camera sees; seen cells that were marked return to 0.

    A cell is seen if the ball around it reaches into a camera's pyramid beyond the depth `near`. Lenses are taken for
    pinholes, so for strong distortion give image sizes and principal points some room. Under contraction the ball is that
    of the cell's outermost part, and cells that reach to infinity are seen.
    """
    _check_grid("mark_invisible_cells", resolution, contraction)
    sizes = check(
        "mark_invisible_cells",
        lasting=("density_ema",),
        density_ema=(density_ema, "n_cells"),
        camera_to_worlds=(camera_to_worlds, "n_cameras 3 4"),
        intrinsics=(intrinsics, "n_cameras 4"),
        image_sizes=(image_sizes, "n_cameras 2", torch.int32),
        aabb=(aabb, "2 3"),
    )
    if sizes["n_cells"] % resolution**3 or (contraction == "sphere" and sizes["n_cells"] > resolution**3):
        raise ValueError(
            f"mark_invisible_cells: density_ema has to hold {resolution}^3 cells for each cascade (contracted space has "
            f"one), got {sizes['n_cells']}"
        )
    if isinstance(density_ema, DeviceArray):
        density_ema = density_ema.to_torch()
    cameras = [plain(x) for x in (camera_to_worlds, intrinsics, image_sizes)]
    if sizes["n_cameras"] == 0:  # Taichi takes no empty arrays
        return torch.full_like(plain(density_ema), -1.0)
    marked = torch.empty_like(plain(density_ema))
    depth = torch.full((1,), near, dtype=density_ema.dtype, device=density_ema.device)
    if sizes["n_cells"]:
        grid = (resolution, contraction == "sphere")
        launch(kernels.mark_invisible_cells, plain(density_ema), *cameras, plain(aabb), depth, *grid, marked)
    return marked


def occupied_fraction(
    bits: Tensor,  # [n_words] int32, a Tensor or DeviceArray
) -> Tensor:
    """The share of cells that are occupied, a float32 scalar; 0 for no cells."""
    sizes = check("occupied_fraction", lasting=("bits",), bits=(bits, "n_words", torch.int32))
    counts = torch.zeros(kernels.N_PARTS, dtype=torch.int32, device=current().torch_device)
    if sizes["n_words"]:
        launch(kernels.count_bits, plain(bits), counts)
    return (counts.sum().double() / max(32 * sizes["n_words"], 1)).float()


def _check_grid(op: str, resolution: int, contraction: str) -> None:
    if resolution < 32 or resolution % 32 or resolution**3 > LARGEST:
        raise ValueError(f"{op}: resolution has to be a multiple of 32, and at most 1280, got {resolution}")
    if contraction not in ("none", "sphere"):
        raise ValueError(f'{op}: contraction has to be "none" or "sphere", got {contraction!r}')
