"""Who looks on while a training runs. This one only looks; `viewer.training_view` shows it in a browser."""

from taichi_nerf.training.step import Step
from taichi_nerf.training.trainer import Trainer


class Onlooker:
    """Asked between steps, outside of the time that counts as training."""

    def begins(self, trainer: Trainer) -> None:
        """Everything is compiled, and the first step is about to be made."""

    def stepped(self, step: Step) -> bool:
        """Whether to save a checkpoint now."""
        return False
