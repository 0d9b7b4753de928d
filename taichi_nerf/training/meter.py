"""How training goes, from steps to rows of metrics.jsonl and to a line for people."""

import math
from typing import Any

from taichi_nerf.training.step import Step


class Meter:
    """Means and rates over the steps since the last row."""

    def __init__(self, n_ranks: int = 1):
        self.n_ranks = n_ranks
        self._steps: list[Step] = []
        self._since: float | None = None  # the seconds at which the last row was made

    def add(self, step: Step) -> None:
        self._steps.append(step)

    @property
    def seconds(self) -> float:
        """Since the last row; the very first step is only the start of the clock."""
        return self._steps[-1].seconds - (self._steps[0].seconds if self._since is None else self._since) if self._steps else 0.0

    def row(self) -> dict[str, Any]:
        """A row of metrics over the steps that were added; forgets them."""
        steps, n = self._steps, len(self._steps)
        counted = steps[1:] if self._since is None and n > 1 else steps
        seconds = self.seconds if self._since is not None or n > 1 else steps[-1].seconds
        known = [step.psnr for step in steps if not math.isnan(step.psnr)]
        rays, samples = (self.n_ranks * sum(getattr(step, name) for step in counted) for name in ("n_rays", "n_samples"))
        self._steps, self._since = [], steps[-1].seconds
        return {
            "step": steps[-1].step,
            "seconds": steps[-1].seconds,
            "loss": sum(step.loss for step in steps) / n,
            "train_psnr": sum(known) / len(known) if known else math.nan,
            "rays_per_second": rays / max(seconds, 1e-9),
            "samples_per_second": samples / max(seconds, 1e-9),
            "n_samples_per_ray": samples / max(rays, 1),
        }

    @staticmethod
    def text(row: dict[str, Any], progress: float) -> str:
        """For the progress bar."""
        left = row["seconds"] * (1 - progress) / max(progress, 1e-9)
        rates = f"{row['rays_per_second'] / 1e3:.0f} k rays/s, {row['samples_per_second'] / 1e6:.2f} M samples/s"
        return f"step {row['step']:,}, PSNR of batches {row['train_psnr']:.1f} dB, {rates}, {left:.0f} s left"
