"""Training a prior: noise patches, let the denoiser tell the noise, L1 loss (Ho et al. 2020; DiffusioNeRF's protocol).

OUT/prior.safetensors       the average of the weights over the last steps: what `--prior` reads
OUT/checkpoint.safetensors  all that training goes on from
OUT/metrics.jsonl           step, seconds, loss, and the loss on held-out patches at four times
OUT/samples.png             patches that the prior makes of noise, colors above depths
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taichi_nerf.export.files import write_png, write_whole
from taichi_nerf.export.prior_sheets import sheet
from taichi_nerf.fields.mlp import best_precision
from taichi_nerf.optimiser import Adam
from taichi_nerf.priors.denoiser import Denoiser
from taichi_nerf.priors.patches import PatchSet
from taichi_nerf.priors.prior import FILE, Prior, PriorSettings, prior_bytes
from taichi_nerf.priors.sampling import sample
from taichi_nerf.report import Report, silent
from taichi_nerf.settings import from_json_dict, to_json_dict
from taichi_nerf.training import metrics_file
from taichi_nerf.training.budget import Budget, Course, Stopwatch
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint
from taichi_nerf.training.run_folder import RunError
from taichi_nerf.training.schedules import cosine

HELD_OUT_TIMES = (3, 47, 99, 400)
N_HELD_OUT = 64
ROW_EVERY, SAVE_EVERY = 10.0, 60.0  # seconds of training


@dataclass(frozen=True)
class PriorTraining:
    """How a prior is trained."""

    steps: int | None = None
    seconds: float | None = None
    batch: int = 32
    learning_rate: float = 1e-4
    average: float = 0.995  # of the weights, that is kept at each step
    late_share: float = 0.0  # of the patches whose time is drawn below `late_until`, where scores of rendered patches are asked
    late_until: float = 0.2  # share of all times
    seed: int = 0


class PriorTrainer(Course):
    def __init__(
        self, settings: PriorSettings, training: PriorTraining, patches: PatchSet, held_out: PatchSet, device: torch.device
    ):
        self.settings, self.training, self.patches, self.device = settings, training, patches, device
        torch.manual_seed(training.seed)
        self.denoiser = Denoiser(settings.denoiser).to(device)
        self.averaged = deepcopy(self.denoiser)
        self.prior = Prior(settings, self.averaged)
        self.optimiser = Adam(self.denoiser.parameters(), training.learning_rate, (0.9, 0.99))
        self.generator = torch.Generator().manual_seed(training.seed)
        self.held_out = held_out.draw(N_HELD_OUT, torch.Generator().manual_seed(1)).to(device)
        self.budget, self.stopwatch = Budget(training.steps, training.seconds), Stopwatch()
        self.precision = getattr(torch, best_precision(device))
        self.n_steps = 0

    def step(self) -> float:
        """One step; its loss."""
        with self.stopwatch.running():
            for group in self.optimiser.param_groups:
                group["lr"] = self.training.learning_rate * cosine(self.progress, 0.02) * min(1.0, (self.n_steps + 1) / 100)
            x = self.patches.draw(self.training.batch, self.generator)
            t = self._times(len(x))
            noise = torch.randn(x.shape, generator=self.generator)
            x, noise, t = (part.to(self.device) for part in (x, noise, t))
            loss = self._loss(self.denoiser, x, noise, t)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
            self.optimiser.step()
            self.n_steps += 1
            kept = min(self.training.average, self.n_steps / (10 + self.n_steps))
            with torch.no_grad():
                for ours, theirs in zip(self.averaged.parameters(), self.denoiser.parameters(), strict=True):
                    ours.lerp_(theirs, 1 - kept)
        return float(loss.detach())

    def _times(self, n: int) -> Tensor:
        n_times = self.settings.n_times
        t = torch.rand(n, generator=self.generator)
        late = torch.rand(n, generator=self.generator) < self.training.late_share
        return (torch.where(late, t * self.training.late_until, t) * n_times).long().clamp_(max=n_times - 1)

    def _loss(self, denoiser: Denoiser, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        noisy = self.prior.schedule.noisy(x, noise, t)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            told = denoiser(noisy, t)
        return (told.float() - noise).abs().mean()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The averaged weights' loss on held-out patches, with the same noise every time."""
        self.averaged.eval()  # forgets the filters of former weights
        found = {}
        for t in HELD_OUT_TIMES:
            noise = torch.randn(self.held_out.shape, generator=torch.Generator().manual_seed(t)).to(self.device)
            times = torch.full((len(noise),), min(t, self.settings.n_times - 1), device=self.device)
            found[f"held_out_{t}"] = float(self._loss(self.averaged, self.held_out, noise, times))
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "denoiser": self.denoiser.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "seconds": self.stopwatch.seconds,
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.denoiser.load_state_dict(state["denoiser"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.stopwatch, self.n_steps = Stopwatch(state["seconds"]), state["n_steps"]


def train_prior(
    trainer: PriorTrainer,
    out: Path,
    made: dict[str, Any],
    *,
    resume: bool = False,
    half: bool = False,
    report: Report = silent,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train into the folder until the budget is spent or `stop()`. True if that ended it."""
    checkpoint, metrics = out / "checkpoint.safetensors", out / "metrics.jsonl"
    if resume and checkpoint.exists():
        state, metadata = load_checkpoint(checkpoint)
        if from_json_dict(PriorSettings, json.loads(metadata["prior"]), str(checkpoint)) != trainer.settings:
            raise RunError(checkpoint, "is of a prior with other settings; train it anew")
        trainer.load_state_dict(state)
        metrics_file.truncate(metrics, trainer.n_steps)
    written = saved = trainer.stopwatch.seconds
    losses: list[float] = []
    stopped = False
    while not (stopped or trainer.is_done):
        losses.append(trainer.step())
        stopped, seconds = stop(), trainer.stopwatch.seconds
        ends = stopped or trainer.is_done
        if ends or seconds - written >= ROW_EVERY:
            row = {"step": trainer.n_steps, "seconds": seconds, "loss": sum(losses) / len(losses), **trainer.measure()}
            metrics_file.append(metrics, row)
            report(trainer.progress, f"step {trainer.n_steps}, loss {row['loss']:.4f}, held out {row['held_out_99']:.4f}")
            written, losses = seconds, []
        if ends or seconds - saved >= SAVE_EVERY:
            save_checkpoint(checkpoint, trainer.state_dict(), {"prior": json.dumps(to_json_dict(trainer.settings))})
            _save(trainer, out, made, half)
            if not stopped:  # who asked it to stop does not wait for pictures
                drawn = sample(trainer.prior, 24, torch.Generator().manual_seed(0), 25)
                write_png(out / "samples.png", sheet(drawn, trainer.prior.settings.variant, trainer.prior.settings.nearest))
            saved = seconds
    return stopped


def _save(trainer: PriorTrainer, out: Path, made: dict[str, Any], half: bool) -> None:
    prior = trainer.prior
    trainer.averaged.eval()  # forgets the filters of former weights
    prior.made = {**made, "steps": trainer.n_steps, "seconds": round(trainer.stopwatch.seconds, 1)}
    write_whole(out / FILE, prior_bytes(prior, half))
