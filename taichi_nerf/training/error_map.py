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
LOG2_TILE = TILE.bit_length() - 1
REMEMBERED = 0.95  # of a tile's error when new ones come in


class ErrorMap(nn.Module):
    """State: the error of every tile. `draw`, then `learn` what the errors were."""

    errors: Tensor  # [n_tiles] mean squared error

    def __init__(self, table: PixelTable):
        super().__init__()
        self.table, self.n_pixels = table, len(table.values)
        starts, widths = table.starts.long(), table.widths.long()
        heights = starts.diff() // widths
        n_columns, n_rows = -(-widths // TILE), -(-heights // TILE)
        first_tiles = torch.cat([starts[:1], (n_columns * n_rows).cumsum(0)])
        view = torch.repeat_interleave(torch.arange(len(heights), device=starts.device), first_tiles.diff())
        tile = torch.arange(len(view), device=view.device) - first_tiles[view]
        left, top = tile % n_columns[view] * TILE, tile // n_columns[view] * TILE
        width, height = (widths[view] - left).clamp_max(TILE), (heights[view] - top).clamp_max(TILE)
        self.area = (width * height).float()
        # In a table each, for one look-up: of tiles their first pixel, width, height and the picture's width; of views their
        # first tile, and how many lie side by side.
        self.tiles = torch.stack([starts[view] + top * widths[view] + left, width, height, widths[view]], -1)
        self.views = torch.stack([first_tiles[:-1], n_columns], -1)
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
            first, width, height, row = self.tiles.index_select(0, tile).unbind(-1)
            x = (draws[1] * width).long().minimum(width - 1)
            y = (draws[2] * height).long().minimum(height - 1)
            index[:n_chosen] = torch.where(has_errors, first + y * row + x, index[:n_chosen])
        relative = self.errors.index_select(0, self.tile_of(index)) * (self.n_pixels / ends[-1].clamp_min(1e-30)).float()
        return index, torch.where(has_errors, (1 - n_chosen / n) + n_chosen / n * relative, 1.0)

    def tile_of(self, index: Tensor) -> Tensor:
        view, x, y = places_of(self.table, index.to(self.table.starts.dtype))
        first, n_columns = self.views.index_select(0, view).unbind(-1)
        return first + (y >> LOG2_TILE) * n_columns + (x >> LOG2_TILE)  # a third of a division's time

    @torch.no_grad()
    def learn(self, index: Tensor, errors: Tensor) -> None:  # [n], [n] squared errors
        known = errors.isfinite()  # a tile would never forget what is not a number
        tile = self.tile_of(index)
        self.sums.index_add_(0, tile, torch.where(known, errors, 0.0))
        self.counts.index_add_(0, tile, known.to(errors.dtype))
        sums, counts, errors = (x.index_select(0, tile) for x in (self.sums, self.counts, self.errors))
        kept = REMEMBERED**counts
        # Pixels of one tile all find the same, and bring the same.
        self.errors.index_copy_(0, tile, kept * errors + (1 - kept) * sums / counts.clamp_min(1))
        for each in (self.sums, self.counts):
            each.index_fill_(0, tile, 0.0)
