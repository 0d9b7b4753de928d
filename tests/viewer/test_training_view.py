"""A training that is looked at: pictures between steps, pause, save, kernels; the browser is a list here."""

import threading
import time
from pathlib import Path

import pytest
import small_run
import torch

from taichi_nerf.kernels import compositing
from taichi_nerf.live_kernels import LiveKernels
from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.run import train
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.viewer.eye import Wish
from taichi_nerf.viewer.stage import first_eye
from taichi_nerf.viewer.training_view import TrainingView
from taichi_nerf.viewer.viewer import Place

GOOD = "out_opacity[ray] = opacity"
pytestmark = pytest.mark.filterwarnings("ignore")  # of viser's server, which ends with the test


class Observed(TrainingView):
    """Does at given steps what a person would do, and notes when steps were made."""

    def __init__(self, acts, *arguments, **options):
        super().__init__(*arguments, **options)
        self.acts, self.steps, self.pictures = acts, [], []

    def begins(self, trainer):
        super().begins(trainer)
        if self.viewer is not None:
            self.viewer.studio.open(0, lambda part, wish, finished: self.pictures.append((len(self.steps), part)), print)
            self.viewer.studio.wish(0, Wish(first_eye(trainer.scene)[0], height=32))

    def stepped(self, step):
        self.steps.append((step.step, time.monotonic(), step.psnr))
        if step.step in self.acts:
            self.acts[step.step](self)
        return super().stepped(step)


def trained(small_scene, tmp_path, acts, n=40, place=True, **options):
    config, scene = small_run.configured(small_scene, steps=n)
    said = []
    here = Place(tmp_path / "viewer", port=0) if place else None
    view = Observed(acts, here, 1.0, lambda: False, say=said.append, **options)
    with RunFolder.create(tmp_path / "run") as folder, view:
        train(config, scene, folder, torch.device("cpu"), onlooker=view)
    return view, folder, said


def look_again(view):
    """As if the time had come."""
    view._refreshed_at, view._owed = 0.0, 1.0


def test_pictures_change_while_it_learns_and_training_is_what_it_is_without_them(cpu, small_scene, tmp_path):
    pytest.importorskip("viser")
    view, folder, said = trained(small_scene, tmp_path, dict.fromkeys((3, 5, 30, 32, 34), look_again))
    assert said[0].startswith("http://127.0.0.1:")
    first, last = view.pictures[0], view.pictures[-1]
    assert first[0] < 30 <= last[0]
    assert first[1].pixels.mean() != last[1].pixels.mean()
    config, scene = small_run.configured(small_scene, steps=40)
    small_run.trained(tmp_path / "alone", config, scene)
    for name in ("field.table", "sampler.bits"):
        ours, alone = (load_checkpoint(f / "checkpoint.safetensors")[0]["model"][name] for f in (folder.path, tmp_path / "alone"))
        assert torch.equal(ours, alone), name


def test_a_pause_holds_the_steps_but_not_the_pictures_and_save_saves(cpu, small_scene, tmp_path):
    pytest.importorskip("viser")
    held = 1.0

    def pause(view):
        view.pause(True)
        threading.Timer(held, view.pause, [False]).start()

    def save(view):
        view._wants_save.set()

    def look(view):
        seen.append(int(load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[0]["n_steps"]))

    seen = []
    view, *_ = trained(small_scene, tmp_path, {10: pause, 20: save, 21: look})
    gaps = {step: later - now for (step, now, _), (_, later, _) in zip(view.steps, view.steps[1:], strict=False)}
    assert gaps[10] > 0.9 * held
    assert seen == [20]


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("error", [MemoryError("no room for 4000 rows"), SystemExit("of a kernel")], ids=repr)
def test_a_picture_that_cannot_be_made_ends_the_viewer_and_not_the_training(cpu, small_scene, tmp_path, is_paused, error):
    pytest.importorskip("viser")

    def break_down(view):
        def work():
            raise error

        view.viewer.studio.work = work
        look_again(view)
        if is_paused:
            view.pause(True)

    view, folder, said = trained(small_scene, tmp_path, {5: break_down, 20: look_again})
    assert "the training goes on: " in said[-1]
    assert f"{type(error).__name__}: {error}" in said[-1]
    assert view.viewer is None
    assert len(view.steps) == 40
    assert load_checkpoint(folder.checkpoint)[0]["n_steps"] == 40


def test_an_edited_kernel_is_in_the_next_step_and_a_mistake_ends_nothing(cpu, small_scene, tmp_path):
    """Without a browser, as `train --watch-kernels` alone."""
    kept, news = dict(vars(compositing)), []
    file = tmp_path / "mine.py"
    file.write_text(Path(compositing.__file__).read_text())
    text = file.read_text()
    assert GOOD in text
    kernels = LiveKernels(True, {"compositing": file}, news.append)
    edits = {
        10: lambda view: file.write_text(text.replace(GOOD, GOOD + " + 1")),
        20: lambda view: file.write_text(text.replace(GOOD, GOOD + " + (")),
    }
    try:
        view, *_ = trained(small_scene, tmp_path, edits, place=False, kernels=kernels)
    finally:
        vars(compositing).clear()
        vars(compositing).update(kept)
    assert view.steps[-1][0] == 40
    assert [one.kind for one in news] == ["gradients", "loaded", "gradients", "failed"]
    assert "SyntaxError" in news[-1].text
