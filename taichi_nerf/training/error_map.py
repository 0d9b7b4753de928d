"""Draw pixels where the error is large, without bias (Müller et al. 2022, appendix E.3, in tiles).

Each picture is cut into tiles; a tile remembers a decaying mean of its pixels' squared errors. A share of a batch is drawn from
tiles in proportion to their error, the rest evenly. With p how many times likelier than evenly a pixel was drawn, its error
counts 1/p.
"""

import torch
from torch import Tensor, nn

from taichi_nerf import random_numbers
from taichi_nerf.training.pixel_batches import PixelTable, places_of

TILE = 16  # pixels along an edge
REMEMBERED = 0.95  # of a tile's error when new ones come in


class ErrorMap(nn.Module):
    """State: the error of every tile. `draw`, then `learn` what the errors were."""

    errors: Tensor  # [n_tiles] mean squared error

    def __init__(self, table: PixelTable):
        super().__init__()
        self.table, self.n_pixels = table, len(table.values)
        self.starts, self.widths = table.starts.long(), table.widths.long()
        heights = self.starts.diff() // self.widths
        self.n_columns, n_rows = -(-self.widths // TILE), -(-heights // TILE)
        self.first_tiles = torch.cat([self.starts[:1], (self.n_columns * n_rows).cumsum(0)])
        view = torch.repeat_interleave(torch.arange(len(heights), device=self.starts.device), self.first_tiles.diff())
        tile = torch.arange(len(view), device=view.device) - self.first_tiles[view]
        self.view = view
        self.left, self.top = tile % self.n_columns[view] * TILE, tile // self.n_columns[view] * TILE
        self.width = (self.widths[view] - self.left).clamp_max(TILE)
        self.height = (heights[view] - self.top).clamp_max(TILE)
        self.area = (self.width * self.height).float()
        self.register_buffer("errors", torch.ones(len(view), device=view.device))
        # Zero but while something is learned: a step touches thousands of tiles, of which photographs have millions.
        self.sums, self.counts = torch.zeros_like(self.errors), torch.zeros_like(self.errors)

    def draw(self, n: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the pixel table [n], and how many times likelier than evenly each was drawn [n]."""
        device, n_chosen = self.errors.device, int(share * n)
        index = random_numbers.below(self.n_pixels, n, generator=generator, device=device)
        mass = self.errors * self.area
        ends = mass.cumsum(0, dtype=torch.float64)
        has_errors = ends[-1] > 0  # asked on the device: a GPU would be waited for
        if n_chosen:
            draws = random_numbers.uniform(3, n_chosen, generator=generator, device=device)
            tile = torch.searchsorted(ends, draws[0].double() * ends[-1], right=True).clamp_max(len(mass) - 1)
            x = self.left[tile] + (draws[1] * self.width[tile]).long().clamp_max(self.width[tile] - 1)
            y = self.top[tile] + (draws[2] * self.height[tile]).long().clamp_max(self.height[tile] - 1)
            view = self.view[tile]
            index[:n_chosen] = torch.where(has_errors, self.starts[view] + y * self.widths[view] + x, index[:n_chosen])
        relative = self.errors[self.tile_of(index)] * (self.n_pixels / ends[-1].clamp_min(1e-30)).float()
        return index, torch.where(has_errors, (1 - n_chosen / n) + n_chosen / n * relative, 1.0)

    def tile_of(self, index: Tensor) -> Tensor:
        view, x, y = places_of(self.table, index.to(self.table.starts.dtype))
        return self.first_tiles[view] + y // TILE * self.n_columns[view] + x // TILE

    @torch.no_grad()
    def learn(self, index: Tensor, errors: Tensor) -> None:  # [n], [n] squared errors
        known = errors.isfinite()  # a tile would never forget what is not a number
        tile = self.tile_of(index)
        self.sums.index_add_(0, tile, torch.where(known, errors, 0.0))
        self.counts.index_add_(0, tile, known.to(errors.dtype))
        sums, counts = self.sums[tile], self.counts[tile]  # pixels of one tile all find the same
        kept = REMEMBERED**counts
        self.errors[tile] = kept * self.errors[tile] + (1 - kept) * sums / counts.clamp_min(1)
        self.sums[tile] = self.counts[tile] = 0.0
