"""What the options of a command ask for arrives in the library that does it: commands are stopped there and asked what they
hand on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
from ball_objects import write_set
from click.testing import CliRunner

from taichi_nerf import runtime
from taichi_nerf.apps.main import main
from taichi_nerf.generator.image_set import ImageSet, save_image_set
from taichi_nerf.generator.model_folder import BUILTIN
from taichi_nerf.scenes import Overrides


class ArrivedError(Exception):
    """Where a command is stopped."""


def stopped(monkeypatch, places, command):
    """Positional and named arguments of the function, the first of those at `places` that a command calls."""
    found = []

    def take(*arguments, **options):
        found.append({**dict(enumerate(arguments)), **options})
        raise ArrivedError

    for place in places:
        monkeypatch.setattr(place, take)
    result = CliRunner().invoke(main, [str(word) for word in command])
    assert len(found) == 1, result.output
    return found[0]


def value_of(arguments, key):
    """`1.gan.batch`: an attribute of an attribute of the second argument."""
    first, *rest = key.split(".")
    found = arguments[int(first) if first.isdecimal() else first]
    for name in rest:
        found = getattr(found, name)
    return found


@pytest.fixture(scope="module")
def places(tmp_path_factory, small_scene):
    """What commands are given, by the word that stands for it."""
    folder = tmp_path_factory.mktemp("places")
    save_image_set(folder / "set.npz", ImageSet(np.zeros((4, 16, 16, 3), np.uint8), np.arange(4), None))
    (folder / "video.mp4").write_bytes(b"")
    (folder / "list.txt").write_text("balls 100 1\n")
    imageio.imwrite(folder / "picture.png", np.pad(np.full((20, 20, 3), 200, np.uint8), ((10, 10), (10, 10), (0, 0))))
    imageio.imwrite(folder / "mask.png", np.full((40, 40), 255, np.uint8))
    (folder / "run").mkdir()
    made_by = {"format": 1, "versions": {"taichi_nerf": "0"}, "scene": {}, "arch": "cpu", "device": "cpu"}
    (folder / "run/config.json").write_text(json.dumps({**made_by, "settings": {"scene": {}, "run": {}}}))
    return {
        "SCENE": small_scene,
        "RUN": folder / "run",
        "SET": folder / "set.npz",
        "VIDEO": folder / "video.mp4",
        "LIST": folder / "list.txt",
        "PICTURE": folder / "picture.png",
        "MASK": folder / "mask.png",
        "MODEL": shutil.copytree(BUILTIN, folder / "model"),
        "OBJECTS": write_set(folder / "objects", n_train=2, n_test=1, n_views=3),
    }


def with_places(text, places, tmp_path):
    words = text.split()
    for name, place in {**places, "NEW": tmp_path / "new"}.items():
        words = [word.replace(name, str(place)) for word in words]
    return words


ON_A_BACKEND = (
    "demo --out NEW",
    "train SCENE --out NEW --steps 1",
    "evaluate RUN",
    "render RUN --out NEW",
    "export RUN --out NEW.ply",
    "view RUN --port 0",
    "scene make objects --out NEW",
    "prior train --out NEW --steps 1",
    "prior sample --out NEW.png",
    "prior score builtin objects:1",
    "pixelnerf train OBJECTS --out NEW --steps 1",
    "pixelnerf evaluate builtin OBJECTS --out NEW",
    "pixelnerf render PICTURE --turntable --out NEW",
    "pixelnerf objects NEW",
    "generator train SET --out NEW --kimg 1",
    "generator directions --model MODEL",
    "generator depth-pose --model MODEL",
    "generator refine --model MODEL",
    "generator evaluate --model MODEL",
    "generator render --model MODEL --out NEW",
    "benchmark kernels",
    "benchmark scenes",
    "benchmark training",
    "benchmark quality --scene SCENE",
    "benchmark nerf",
    "benchmark scales",
    "benchmark samplers",
)


@pytest.mark.parametrize("command", ON_A_BACKEND)
def test_the_backend_is_the_one_that_is_asked_for(command, places, tmp_path, monkeypatch):
    words = with_places(command, places, tmp_path)
    starts = ["taichi_nerf.runtime.start", *(["taichi_nerf.benchmarks.scenes.start"] if "scenes" in words else [])]
    assert stopped(monkeypatch, starts, [*words, "--arch", "vulkan"])[0] == "vulkan"


CASES = {  # a function within taichi_nerf, a command, and what of its options the function is given
    "photos": (
        "scenes.photos.photos_to_scene",
        "photos VIDEO --out NEW --matching sequential --camera-model OPENCV --max-image-size 800 --n-frames 7 --undistort "
        "--seed 3",
        {"matching": "sequential", "camera_model": "OPENCV", "max_image_size": 800, "n_frames": 7, "undistort": True, "seed": 3},
    ),
    "scene make": (
        "procedural.make.make_scene",
        "scene make chairs --out NEW --n-views 7 --size 24 --seed 5",
        {"0": "chairs", "n_views": 7, "size": 24, "seed": 5},
    ),
    "scene convert": (
        "scenes.write.write_transforms",
        "scene convert SCENE NEW --link --n-views 3 --center 1,2,3 --scale 2 --axes file",
        {"link": True, "n_views": 3, "views": None, "overrides": Overrides((1, 2, 3), 2, axes="file")},
    ),
    "scene convert --scales": ("scenes.write_multiscale.write_multiscale", "scene convert SCENE NEW --scales 3", {"2": 3}),
    "scene info": (
        "scenes.load_scene",
        "scene info SCENE --views 1,3 --protocol even --downscale 2 --near 0.5 --far 3 --center 1,0,0 --scale 2 --axes upright "
        "--allow-outside",
        {"views": [1, 3], "protocol": "even", "downscale": 2, "allow_outside": True,
         "overrides": Overrides((1, 0, 0), 2, 0.5, 3, axes="upright")},
    ),
    "train": (
        "training.run.train",
        "train SCENE --out NEW --arch cpu --method nerf --preset small --steps 7 --time-budget 9 --seed 4 --background black "
        "--n-views 3 --protocol even --downscale 2 --near 0.5 --far 3 --center 0,0.1,0 --scale 2 --axes file --allow-outside",
        {"0.run.method": "nerf", "0.run.preset": "small", "0.run.steps": 7, "0.run.time_budget": 9, "0.run.seed": 4,
         "0.run.background": "black", "0.scene.n_views": 3, "0.scene.protocol": "even", "0.scene.downscale": 2,
         "0.scene.near": 0.5, "0.scene.far": 3, "0.scene.center": (0, 0.1, 0), "0.scene.scale": 2, "0.scene.axes": "file",
         "0.scene.allow_outside": True, "resume": False},
    ),
    "train --view": (
        "viewer.training_view.TrainingView",
        "train SCENE --out NEW --arch cpu --steps 7 --background black --view --port 0 --token long-enough --resolution 300",
        {"0.token": "long-enough", "0.height": 300, "0.port": 0, "0.host": "127.0.0.1", "1": 0.0},
    ),
    "view": (
        "viewer.viewer.Viewer",
        "view SCENE --port 0 --token long-enough --resolution 300 --out NEW --downscale 2 --host localhost",
        {"1.token": "long-enough", "1.height": 300, "1.port": 0, "1.host": "localhost", "1.out.name": "new"},
    ),
    "demo": ("demo.run", "demo --out NEW --arch cpu --steps 7 --seed 3", {"2": None, "3": 7, "4": 3}),
    "demo --seconds": ("demo.run", "demo --out NEW --arch cpu --seconds 7", {"2": 7, "3": None, "4": 0}),
    "prior train": (
        "training.prior_run.run",
        "prior train --out NEW --arch cpu --data rooms:5 --metric-scale 2 --size 16 --angle 90 --nearest 0.5 --variant d "
        "--schedule linear --batch 4 --learning-rate 0.01 --steps 3 --time-budget 5 --half --threads 1 --seed 3",
        {"0.patches.sources": ("rooms:5",), "0.patches.metric_scale": 2, "0.patches.seed": 3, "0.prior.size": 16,
         "0.prior.focal": pytest.approx(8),
         "0.prior.nearest": 0.5, "0.prior.variant": "d", "0.prior.schedule": "linear", "0.training.batch": 4,
         "0.training.learning_rate": 0.01, "0.training.steps": 3, "0.training.seconds": 5, "0.training.seed": 3,
         "0.half": True, "threads": 1, "resume": False},
    ),
    "prior sample": (
        "priors.sampling.sample_of_seed",
        "prior sample --out NEW.png --arch cpu --n 5 --seed 3 --steps 7 --eta 0.5",
        {"1": 5, "2": 3, "3": 7, "4": 0.5},
    ),
    "prior score": (
        "training.prior_score.score_patches",
        "prior score builtin objects:2 --arch cpu --n 9 --metric-scale 2 --seed 4",
        {"1": "objects:2", "2": 9, "3": 2, "4": 4},
    ),
    "pixelnerf train": (
        "training.train_pixelnerf.train",
        "pixelnerf train OBJECTS --out NEW --arch cpu --preset small --views 1,3 --steps 7 --time-budget 9 --encoder MASK "
        "--background black --prefix gen --seed 4",
        {"0.batch.views": (1, 3), "0.run.steps": 7, "0.run.time_budget": 9, "0.run.seed": 4, "0.objects.background": "black",
         "0.objects.prefix": "gen", "encoder.name": "mask.png", "start": None},
    ),
    "pixelnerf train --start": (
        "training.train_pixelnerf.train",
        "pixelnerf train OBJECTS --out NEW --arch cpu --steps 7 --start builtin",
        {"encoder": None, "start": "builtin"},
    ),
    "pixelnerf evaluate": (
        "training.pixelnerf_evaluate.evaluate",
        "pixelnerf evaluate builtin OBJECTS --out NEW --arch cpu --split train --views 1 --targets 0,2 --without 2 "
        "--sampling-seed 5 --save-images",
        {"1.split": "train", "sources": [1], "targets": [0, 2], "without": [2], "seed": 5, "save_to.name": "new"},
    ),
    "pixelnerf render": (
        "training.pixelnerf_pictures.on_turntable",
        "pixelnerf render PICTURE --turntable --out NEW --arch cpu --mask MASK --threshold 0.2 --fill 0.6 --azimuth 40 "
        "--elevation 10 --distance 3 --field-of-view 50 --reach 0.5 --size 32",
        {"1.threshold": 0.2, "1.fill": 0.6, "1.elevation": 10, "1.distance": 3, "1.field_of_view": 50, "1.reach": 0.5,
         "1.size": 32, "4": 40, "3": 1.0},
    ),
    "pixelnerf render --refine": (
        "training.pixelnerf_render.refine",
        "pixelnerf render OBJECTS/balls_test/100 --views 1,2 --out NEW --arch cpu --refine 3 --seed 4",
        {"2": [1, 2], "3": 3, "seed": 4},
    ),
    "pixelnerf render --distil": (
        "training.pixelnerf_distil.distil",
        "pixelnerf render OBJECTS/balls_test/100 --out NEW --arch cpu --n-frames 1 --width 8 --distil NEW2 --distil-seconds 3 "
        "--seed 4",
        {"3.name": "new2", "seconds": 3, "width": 8, "seed": 4},
    ),
    "pixelnerf objects": (
        "procedural.object_set.make_object_set",
        "pixelnerf objects NEW --arch cpu --families chairs --count 5 --n-views 3 --size 16",
        {"0": {"chairs": None}, "2": {"train": range(5), "val": range(9000, 9006)}, "n_views": 3, "size": 16},
    ),
    "generator train": (
        "generator.stylegan2.run.train_generator",
        "generator train SET --out NEW --arch cpu --size 16 --kimg 2 --time-budget 9 --channels 128 --most-channels 32 --batch 8 "
        "--r1 0.5 --grow-at 1 --augment --mirror --no-noise --precision bfloat16 --seed 5",
        {"2.networks.resolution": 16, "2.networks.channel_base": 128, "2.networks.channel_max": 32, "2.networks.w_dim": 32,
         "2.gan.batch": 8, "2.gan.r1_gamma": 0.5, "2.gan.mirror": True, "2.gan.noise": False, "2.gan.augment_target": 0.6,
         "2.grow_at": 1000, "2.precision": "bfloat16", "2.seed": 5, "seconds": 9, "n_images": 2000, "resume": False},
    ),
    "generator directions": (
        "generator.directions.pca",
        "generator directions --model MODEL --arch cpu --samples 2000 --components 7 --seed 3",
        {"1": 2000, "2": 7, "3": 3},
    ),
    "generator directions --method factorised": (
        "generator.directions.factorised",
        "generator directions --model MODEL --arch cpu --method factorised --components 7 --seed 3 --layers 1-3",
        {"1": (1, 4), "2": 7, "3": 3},
    ),
    "generator directions --yaw": (
        "generator.yaw_choice.choose_yaw",
        "generator directions --model MODEL --arch cpu --method factorised --yaw 2 --layers 1-3 --truncation 0.6",
        {"1.truncation": 0.6, "ranges": [(1, 4)], "also": 2},
    ),
    "generator depth-pose": (
        "generator.stages.make_depth_pose",
        "generator depth-pose --model MODEL --arch cpu --steps 3 --batch 4 --width 8 --subjects 5 --reach 2 --fov 30 "
        "--learn-focal --nearest 0.5 --farthest 2 --smoothness 0.1 --seed 6",
        {"1.width": 8, "1.nearest": 0.5, "1.farthest": 2, "1.field_of_view": 30, "1.learn_focal": True, "2.steps": 3,
         "2.batch": 4, "2.n_subjects": 5, "2.smoothness": 0.1, "4": 6, "5": 2},
    ),
    "generator refine": (
        "generator.stages.make_refiner",
        "generator refine --model MODEL --arch cpu --steps 3 --batch 4 --subjects 5 --pairs 6 --reach 2 --width 16 --scope all "
        "--keep 0.5 --warp 0.1 --latent 0.2 --feature 0.3 --turn 0.7 --natural 0.6 --seed 6",
        {"1.width": 16, "1.scope": "all", "1.keep": 0.5, "2.steps": 3, "2.batch": 4, "2.n_subjects": 5, "2.n_pairs": 6,
         "2.warp": 0.1, "2.latent": 0.2, "2.feature": 0.3, "2.turn": 0.7, "2.natural": 0.6, "4": 6, "5": 2},
    ),
    "generator evaluate": (
        "generator.evaluation.instruments.instruments",
        "generator evaluate --model MODEL --arch cpu --images SET --inception MASK --embedder PICTURE --train-features 3",
        {"1": "SET", "2.name": "mask.png", "3.name": "picture.png", "4": 3},
    ),
    "generator render": (
        "generator.render.turn_seed",
        "generator render --model MODEL --arch cpu --out NEW --seed 3 --n-frames 5 --share 0.5 --diffusion-steps 4",
        {"3": 3, "4": 5, "5": 4, "6": 0.5},
    ),
    "benchmark kernels": ("benchmarks.kernels.run", "benchmark --arch cpu --only adam --n 9", {"0": ["adam"], "1": 9}),
    "benchmark training": (
        "benchmarks.training.run",
        "benchmark training --arch cpu --scene SCENE --seconds 3 --preset fast --set batch.n_rays=9",
        {"1": 3, "2": ["batch.n_rays=9"], "4": "fast"},
    ),
    "benchmark quality": (
        "benchmarks.quality.measure",
        "benchmark quality --arch cpu --scene SCENE --seconds 3 --preset fast --set batch.n_rays=9",
        {"1": 3, "2": "fast", "3": ("batch.n_rays=9",)},
    ),
    "benchmark scales": ("benchmarks.methods.run", "benchmark scales --arch cpu", {"0": "scales", "1": 120}),
    "benchmark samplers": ("benchmarks.methods.run", "benchmark samplers --arch cpu", {"0": "samplers", "1": 60}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_options_arrive(case, cpu, places, tmp_path, monkeypatch):
    place, command, expected = CASES[case]
    monkeypatch.setattr(runtime, "choose", lambda: "cpu")  # in no process of its own
    found = stopped(monkeypatch, [f"taichi_nerf.{place}"], with_places(command, places, tmp_path))
    wanted = {key: str(places["SET"]) if value == "SET" else value for key, value in expected.items()}
    assert {key: value_of(found, key) for key in expected} == wanted


OF_A_RUN = {
    "evaluate": (
        "training.evaluate.evaluate",
        "evaluate RUN --split val --views 3,5 --save-images --lpips MASK --out NEW",
        {"1": "val", "2": [3, 5], "3.place.name": "mask.png", "4": True, "6.name": "new"},
    ),
    "export": (
        "training.export_run.mesh_of_run", "export RUN --out NEW.ply --resolution 33 --threshold 5", {"1": 33, "2": 5},
    ),
    "export --what points": (
        "training.export_run.points_of_run", "export RUN --out NEW.ply --what points --resolution 33", {"1": 33},
    ),
    "render": (
        "training.render_path.cameras_of_path",
        "render RUN --arch cpu --out NEW --path interpolate --n-frames 3 --width 20 --height 10",
        {"1": "interpolate", "2": 3, "3": 20, "4": 10},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_A_RUN)
def test_options_of_what_is_done_with_a_run_arrive(case, cpu, places, tmp_path, monkeypatch):
    place, command, expected = OF_A_RUN[case]
    run = SimpleNamespace(model=SimpleNamespace(box=SimpleNamespace(device="cpu")), scene=None)
    asked = []

    def opened(*arguments, **_):
        asked.append(arguments)
        return run

    monkeypatch.setattr(f"taichi_nerf.apps.{case.split()[0]}.open_run", opened)
    monkeypatch.setattr("taichi_nerf.metrics.Lpips", lambda place, device: SimpleNamespace(place=place))
    words = [*with_places(command, places, tmp_path), "--scene", "moved"]
    found = stopped(monkeypatch, [f"taichi_nerf.{place}"], words)
    assert {key: value_of(found, key) for key in expected} == expected
    assert asked[0][:2] == (places["RUN"], Path("moved"))
