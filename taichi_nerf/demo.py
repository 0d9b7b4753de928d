"""The main job on a scene of our own making: pictures, training, figures, a video, a mesh, all by the parts that users have."""

import shutil
from pathlib import Path
from typing import NamedTuple

import torch

from taichi_nerf.export.mesh import save_mesh
from taichi_nerf.export.video import open_frames
from taichi_nerf.procedural import make_scene
from taichi_nerf.procedural.ground_truth import FILE
from taichi_nerf.report import Report, silent
from taichi_nerf.training import presets
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.evaluate import evaluate
from taichi_nerf.training.export_run import mesh_of_run
from taichi_nerf.training.folder_lock import FolderLock
from taichi_nerf.training.render_path import cameras_of_path, frames
from taichi_nerf.training.run import load_run, train
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.training.scene_files import open_scene

N_TRAINING_VIEWS, N_TEST_VIEWS, SIZE = 40, 8, 144
N_FRAMES, FPS, MESH_RESOLUTION = 60, 24, 160


class Outcome(NamedTuple):
    """How good it is and where it lies."""

    psnr: float  # mean over test views, which training never saw
    ssim: float
    n_steps: int
    seconds: float  # of training
    files: list[tuple[Path, str]]  # and what each is


def run(
    out: Path,
    device: torch.device,
    seconds: float | None = 60.0,
    steps: int | None = None,
    seed: int = 0,
    report: Report = silent,
) -> Outcome:
    """Everything goes to `out`, which is made and held; what an earlier demo left there is replaced, each part when the new one
    is there. Whatever else there is stays."""
    with FolderLock(out):
        return _run(out, device, seconds, steps, seed, report)


def _run(out: Path, device: torch.device, seconds: float | None, steps: int | None, seed: int, report: Report) -> Outcome:
    folder = out / "scene"
    former = (folder / FILE).is_file()
    made = out / ".scene" if former else folder

    def pictures(done: int, of: int) -> None:
        report(done / of, f"picture {done} of {of}")

    if former:
        shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
    make_scene("objects", made, seed=seed, n_views=N_TRAINING_VIEWS, n_val=0, n_test=N_TEST_VIEWS, size=SIZE, report=pictures)
    if former:
        for file in [file for file in folder.rglob("*") if not (file.is_dir() and not file.is_symlink())]:
            kept = made / file.relative_to(folder)
            if not kept.exists():  # somebody's own, as a run that was trained into it
                kept.parent.mkdir(parents=True, exist_ok=True)
                file.replace(kept)
        shutil.rmtree(folder)
        made.rename(folder)
    settings = SceneSettings(str(folder.resolve()))
    scene = open_scene(settings)
    config, _ = presets.choose(scene, settings, RunSettings(seed=seed, steps=steps, time_budget=seconds), device)
    with RunFolder.create(out / "run", overwrite=True) as run_folder:
        trained = train(config, scene, run_folder, device, report=report)
    loaded = load_run(out / "run", device)
    figures = evaluate(loaded, "test", report=report)
    cameras, _ = cameras_of_path(scene, "orbit", N_FRAMES)
    with open_frames(out / "orbit.mp4", FPS) as video:
        for number, picture in frames(loaded, cameras, range(N_FRAMES), ("color", "depth")):
            video.add(picture, number)
            report((number + 1) / N_FRAMES, f"orbit: frame {number + 1} of {N_FRAMES}")
    save_mesh(mesh_of_run(loaded, MESH_RESOLUTION, report=report), out / "mesh.ply")
    files = [
        (out / "orbit.mp4", "once around it: color and depth"),
        (out / "mesh.ply", "its surface, in color"),
        *((file, "truth, render, error x 5, depth of a test view") for file in sorted(run_folder.preview.glob("*.png"))),
        (run_folder.plots / "training.png", "how training went"),
        (run_folder.eval_folder("test") / "metrics.json", "figures of each test view"),
        (run_folder.path, "the run: render, export and evaluate take it"),
        (folder, "the scene: train takes it"),
    ]
    return Outcome(figures["psnr"], figures["ssim"], trained.n_steps, trained.seconds, files)
