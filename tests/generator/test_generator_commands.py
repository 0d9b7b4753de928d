"""The commands of `taichi-nerf generator`, one after another on a tiny set, as a user would run them."""

import json
import os
import threading
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from failing_starts import contents

from taichi_nerf.apps.generator_options import Seeds
from taichi_nerf.apps.main import main
from taichi_nerf.generator.directions import load_directions
from taichi_nerf.generator.image_set import ImageSet, save_image_set
from taichi_nerf.generator.model_folder import STAGES_LOCK, ModelFolder
from taichi_nerf.generator.render import turn_plainly, turn_seed
from taichi_nerf.generator.stages import open_depth_pose, open_refiner, open_turns
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint
from taichi_nerf.training.folder_lock import LOCK, FolderLock


def invoke(*arguments):
    torch.set_default_device(None)
    result = CliRunner().invoke(main, ["generator", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a set of 24 pictures: bars before white."""
    folder = tmp_path_factory.mktemp("generator")
    random = np.random.default_rng(0)
    images, yaws = np.full((24, 16, 16, 3), 255, np.uint8), random.uniform(-1, 1, 24).astype(np.float32)
    for image, yaw in zip(images, yaws, strict=True):
        at = int(8 + 4 * yaw)
        image[:, at - 2 : at + 2] = random.integers(0, 200, 3)
    save_image_set(folder / "set.npz", ImageSet(images, np.repeat(np.arange(6), 4), yaws))
    return folder


TINY = ("--channels", 64, "--most-channels", 16, "--batch", 4, "--arch", "cpu")


@pytest.fixture(scope="module")
def model(place):
    """A model folder with every stage, each of a few steps."""
    out = place / "model"
    stages = [
        ("train", place / "set.npz", "--out", out, "--kimg", 0.08, "--grow-at", 0.04, *TINY),
        ("directions", "--model", out, "--samples", 2000, "--components", 8, "--truncation", 0.9, "--arch", "cpu"),
        ("depth-pose", "--model", out, "--steps", 2, "--batch", 2, "--width", 4, "--subjects", 4, "--smoothness", 0.02,
         "--arch", "cpu"),
        ("refine", "--model", out, "--steps", 2, "--batch", 2, "--subjects", 3, "--pairs", 3, "--width", 16, "--keep", 0.5,
         "--turn", 2, "--natural", 0.5, "--arch", "cpu"),
    ]  # fmt: skip
    for stage in stages:
        status, _, err = invoke(*stage)
        assert status == 0, err
    return out


@pytest.mark.parametrize(("lock", "stage"), [
    (LOCK, ("train", "heads", "--out", "MODEL", "--kimg", 1, "--resume")),
    (STAGES_LOCK, ("directions", "--model", "MODEL")),
    (STAGES_LOCK, ("depth-pose", "--model", "MODEL")),
    (STAGES_LOCK, ("refine", "--model", "MODEL")),
    (STAGES_LOCK, ("evaluate", "--model", "MODEL", "--images", "heads:2", "--train-features", 2)),
])  # fmt: skip
def test_what_another_process_writes_into_a_model_is_told(model, lock, stage):
    before = contents(model)
    with FolderLock(model, name=lock):
        status, _, err = invoke(*(model if word == "MODEL" else word for word in stage), "--arch", "cpu")
    assert (status, f"error: {model}: is held by this process already" in err) == (1, True), err
    assert contents(model) == before


def test_stages_run_on_the_last_saved_generator_while_it_is_trained_and_training_goes_on_beside_them(place, model):
    import shutil

    copy = place / "trained meanwhile"
    shutil.copytree(model, copy)
    before = contents(copy)
    few = ("--steps", 1, "--batch", 2, "--subjects", 2, "--arch", "cpu")
    with FolderLock(copy):
        for stage in (("directions", "--samples", 2000, "--arch", "cpu"), ("depth-pose", "--width", 4, *few),
                      ("refine", "--pairs", 3, "--width", 16, *few)):  # fmt: skip
            status, _, err = invoke(stage[0], "--model", copy, *stage[1:])
            assert status == 0, err
    of_stages = {str(file.relative_to(copy)) for file, content in contents(copy).items() if before.get(file) != content}
    assert {"directions.npz", "depth_pose/depth.pth", "refiner.safetensors", "pictures/depth.png"} < of_stages
    before = contents(copy)
    with FolderLock(copy, name=STAGES_LOCK):
        status, _, err = invoke("train", place / "set.npz", "--out", copy, "--kimg", 0.09, "--resume", "--arch", "cpu")
        assert status == 0, err
    changed = {str(file.relative_to(copy)) for file, content in contents(copy).items() if before.get(file) != content}
    assert {"generator.safetensors", "gan.safetensors"} < changed
    assert changed & of_stages == {"about.json"}


def test_who_measures_a_model_without_training_anything_waits_for_nobody(place, model):
    arguments = ("--seeds", "500-501", "--places", 3, "--images", place / "set.npz", "--arch", "cpu")
    with FolderLock(model), FolderLock(model, name=STAGES_LOCK):
        status, _, err = invoke("evaluate", "--model", model, *arguments)
        assert status == 0, err
        status, _, err = invoke("render", "--model", model, "--out", place / "meanwhile.png", "--n-frames", 3, "--arch", "cpu")
        assert status == 0, err


def test_notes_of_stages_that_end_at_once_are_all_kept(tmp_path, monkeypatch):
    """Of two that read the former notes before either has written its own."""
    read = ModelFolder.read_about

    def slowly(folder):
        found = read(folder)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(ModelFolder, "read_about", slowly)
    writers = [threading.Thread(target=ModelFolder(tmp_path).tell_about, args=(stage, {})) for stage in ("train", "refine")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read(ModelFolder(tmp_path)).keys() == {"train", "refine"}


def test_a_new_model_is_held_before_its_pictures_are_rendered(place, monkeypatch):
    monkeypatch.setattr("taichi_nerf.generator.heads.heads", None)
    with FolderLock(place / "new"):
        status, _, err = invoke("train", "heads", "--out", place / "new", "--kimg", 1, "--arch", "cpu")
        assert (status, "is held by this process already" in err) == (1, True), err
    assert not (place / "new").exists()


def test_every_stage_leaves_its_file_its_picture_and_a_note(model):
    for name in ("generator.safetensors", "directions.npz", "depth_pose/depth.pth", "refiner.safetensors", "gan.safetensors"):
        assert (model / name).is_file(), name
    for name in ("directions_yaw.png", "depth.png", "refined.png"):
        assert (model / "pictures" / name).is_file(), name
    about = json.loads((model / "about.json").read_text())
    assert list(about) == ["train", "directions", "depth_pose", "refine"]
    assert about["train"]["images"] == 80
    refined = about["refine"]  # weights, from which the ablation trains; what the losses came to stands beside them
    assert [refined[name] for name in ("warp", "latent", "feature", "turn", "natural")] == [1.0, 0.01, 1.0, 2.0, 0.5]
    assert (about["depth_pose"]["smoothness"], refined["keep"]) == (0.02, 0.5)
    assert open_refiner(ModelFolder(model))[0].settings.keep == 0.5
    assert about["directions"]["truncation"] == 0.9
    assert load_directions(model / "directions.npz").truncation == pytest.approx(0.9)
    assert refined["losses"].keys() == {"warp", "latent", "feature", "turn", "natural"}
    assert all("machine" in stage for stage in about.values())


def test_a_damaged_set_is_told_in_one_line(place):
    content = bytearray((place / "set.npz").read_bytes())
    content[80:120] = bytes(40)
    (place / "damaged.npz").write_bytes(content)
    status, _, err = invoke("train", place / "damaged.npz", "--out", place / "none", "--kimg", 1, *TINY)
    assert status == 1
    assert "damaged.npz: is no set of images" in err.splitlines()[-1]


def test_a_training_is_not_overwritten_and_resumes_exactly(place, model):
    status, _, err = invoke("train", place / "set.npz", "--out", model, "--kimg", 0.1, *TINY)
    assert status == 1
    assert "--resume goes on with it" in err
    halves, whole = place / "halves", place / "whole"
    for arguments in ((halves, "--kimg", 0.04), (halves, "--kimg", 0.08, "--resume"), (whole, "--kimg", 0.08)):
        status, _, err = invoke("train", place / "set.npz", "--out", *arguments, *TINY)
        assert status == 0, err
    a, b = (load_checkpoint(folder / "gan.safetensors")[0]["training"] for folder in (halves, whole))
    assert a["n_images"] == b["n_images"] == 80
    assert all(torch.equal(a["generator"][name], value) for name, value in b["generator"].items())


def test_a_generator_without_its_training_is_not_overwritten(place, model):
    out = place / "converted"
    status, _, err = invoke("convert", model, out)
    assert status == 0, err
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    for source, options in ((place / "set.npz", ()), ("heads:2", ()), (place / "set.npz", ("--resume",))):
        status, _, err = invoke("train", source, "--out", out, "--kimg", 0.016, *TINY, *options)
        assert status == 1
        assert "converted" in err
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_a_folder_of_somebodys_own_files_becomes_no_model(place, model):
    mine = place / "mine"
    mine.mkdir()
    (mine / "about.json").write_text("mine")
    for command in (("train", place / "set.npz", "--out", mine, "--kimg", 0.016, *TINY), ("convert", model, mine)):
        status, _, err = invoke(*command)
        assert status == 1
        assert err.startswith(f"error: {mine}: is ")
        assert err.count("\n") == 1
    assert {file.name: file.read_text() for file in mine.iterdir()} == {"about.json": "mine"}


def test_a_copy_of_a_model_that_breaks_off_leaves_nothing(place, model, monkeypatch):
    before = sorted(place.iterdir())
    monkeypatch.setattr("taichi_nerf.generator.copying.copy_whole", lambda source, target: 1 / 0)  # after its first file
    assert invoke("convert", model, place / "broken_off")[0] == 1
    assert sorted(place.iterdir()) == before


def test_resuming_takes_the_command_again_and_refuses_other_settings(place, model):
    again = ("train", place / "set.npz", "--out", model, "--kimg", 0.08, "--grow-at", 0.04, *TINY, "--resume")
    for option in (("--size", 32), ("--channels", 128), ("--most-channels", 8), ("--batch", 8), ("--r1", 1), ("--grow-at", 0),
                   ("--augment",), ("--mirror",), ("--no-noise",), ("--precision", "float16"), ("--seed", 1)):  # fmt: skip
        status, _, err = invoke(*again, *option)
        assert (status, f"{option[0].replace('--no-', '--')} cannot change on --resume" in err) == (2, True)
    status, _, err = invoke(*again, "--size", 16, "--noise", "--seed", 0)
    assert status == 0, err


def test_a_training_does_not_go_on_with_other_pictures(place):
    """As many, of the same size, or fewer of them; those that it began with are taken again."""
    with np.load(place / "set.npz") as data:
        images = data["images"]
    save_image_set(place / "negative.npz", ImageSet(255 - images))
    save_image_set(place / "fewer.npz", ImageSet(images[:20]))
    save_image_set(place / "mirrored.npz", ImageSet(images[:, :, ::-1]))  # whose means are the same
    save_image_set(place / "nearly.npz", ImageSet(images - (images > 0)))  # rendered by another machine
    noise = np.random.default_rng(0).integers(-4, 5, images.shape)
    save_image_set(place / "encoded.npz", ImageSet((images + noise).clip(0, 255).astype(np.uint8)))  # anew, as JPEGs are
    command = ("--out", place / "own", *TINY)
    assert invoke("train", place / "set.npz", *command, "--kimg", 0.004)[0] == 0
    before = (place / "own" / "gan.safetensors").read_bytes()
    for other in ("negative", "fewer", "mirrored"):
        status, _, err = invoke("train", place / f"{other}.npz", *command, "--kimg", 0.008, "--resume")
        assert (status, "own/gan.safetensors: was trained on other pictures" in err) == (1, True)
    assert (place / "own" / "gan.safetensors").read_bytes() == before
    for n, same in ((8, "nearly"), (12, "encoded")):
        assert invoke("train", place / f"{same}.npz", *command, "--kimg", n / 1000, "--resume")[0] == 0


def test_a_training_of_an_older_version_knows_its_pictures_by_their_means(place):
    with np.load(place / "set.npz") as data:
        images = data["images"]
    save_image_set(place / "dark.npz", ImageSet(images // 2))
    command = ("--out", place / "older", *TINY)
    assert invoke("train", place / "set.npz", *command, "--kimg", 0.004)[0] == 0
    file = place / "older" / "gan.safetensors"
    save_checkpoint(file, {**load_checkpoint(file)[0], "pictures": torch.from_numpy(images.mean((1, 2, 3))).float()}, {})
    status, _, err = invoke("train", place / "dark.npz", *command, "--kimg", 0.008, "--resume")
    assert (status, "was trained on other pictures" in err) == (1, True)
    assert invoke("train", place / "set.npz", *command, "--kimg", 0.008, "--resume")[0] == 0
    assert load_checkpoint(file)[0]["pictures"].shape == (24, 4, 4, 3)


def test_the_least_budget_is_one_step(place):
    status, out, err = invoke("train", place / "set.npz", "--out", place / "least", "--kimg", 1e-6, *TINY)
    assert (status, "4 images shown" in out) == (0, True), err
    for option in (("--kimg", 1e307), ("--grow-at", 1e306), ("--batch", 10**9), ("--channels", 10**9)):
        status, _, err = invoke("train", place / "set.npz", "--out", place / "none", "--kimg", 1, *TINY, *option)
        assert (status, f"Invalid value for '{option[0]}'" in err) == (2, True), err


def test_pictures_of_other_persons_do_not_take_the_place_of_those_that_a_training_began_with(place):
    command = ("--out", place / "persons", "--size", 16, *TINY)
    assert invoke("train", "heads:2", *command, "--kimg", 0.004)[0] == 0
    before = (place / "persons" / "images.npz").read_bytes()
    status, _, err = invoke("train", "heads:3", *command, "--kimg", 0.008, "--resume")
    assert (status, "was trained on other pictures" in err) == (1, True)
    assert (place / "persons" / "images.npz").read_bytes() == before


def test_components_come_from_a_file_of_ganspaces(place, model):
    """The one that is asked for, with the layers that are, and a measured sign."""
    with np.load(model / "directions.npz") as data:
        theirs = {name: data[name][::-1] for name in data.files if not name.startswith(("yaw", "truncation"))}
    np.savez(place / "theirs.npz", **theirs)
    out = place / "of_theirs"
    assert invoke("convert", model, out)[0] == 0
    arguments = ("directions", "--model", out, "--file", place / "theirs.npz", "--arch", "cpu")
    status, _, err = invoke(*arguments, "--yaw", 7, "--layers", "0-2")
    assert status == 0, err
    found, before = load_directions(out / "directions.npz"), load_directions(model / "directions.npz")
    assert torch.equal(found.components[7], before.components[0])
    assert (found.yaw_component, found.yaw_layers) == (7, (0, 3))
    assert json.loads((out / "about.json").read_text())["directions"]["method"] == "file theirs.npz"
    plain = ("directions", "--model", out, "--arch", "cpu")
    for options, told in (
        ((*arguments, "--method", "factorised"), "--method says nothing with --file"),
        ((*arguments, "--components", 3), "--components says nothing with --file"),
        ((*plain, "--method", "factorised", "--samples", 2000), "--samples says nothing with --method factorised"),
        ((*plain, "--method", "labels", "--components", 3), "--components says nothing with --method labels"),
    ):
        status, _, err = invoke(*options)
        assert (status, told in err) == (2, True)


def test_the_course_of_a_training_is_told_before_it_is_first_saved(place):
    out = place / "new" / "model"  # made by the training: 50 steps take less than the time between saves
    status, _, err = invoke("train", place / "set.npz", "--out", out, "--kimg", 0.204, *TINY)
    assert status == 0, err
    assert [json.loads(line)["step"] for line in (out / "gan.jsonl").read_text().splitlines()] == [50]


def test_evaluation_writes_its_figures_and_trains_features_of_the_set(place, model):
    file, older = place / "figures.json", place / "older.json"
    older.write_text("{}")
    os.link(older, file)
    status, out, err = invoke("evaluate", "--model", model, "--seeds", "500-505,505", "--places", 4, "--json", file,
                              "--images", place / "set.npz", "--train-features", 3, "--arch", "cpu")  # fmt: skip
    assert status == 0, err
    assert older.read_text() == "{}", "written over in place"
    found = json.loads(file.read_text())
    assert (found["seeds"], found["n_subjects"], found["places"]) == ([500, 505], 6, 5)
    assert found["refined"]["n_images"] == 6 * 4
    for method in ("gan_space", "refined"):
        assert {"warp_error", "ssim", "identity", "fid", "kid", "yaw_span"} <= set(found[method])
        assert found[method]["fid"] is not None
    assert set(found["ranges"]) == {"20", "40", "full"}
    assert found["features"] == "self-trained"
    assert "yaw correlation" in out
    assert found["kid_difference"]["deviation"] > 0
    assert f"changes KID by {found['kid_difference']['value']:+.4f} ± " in out


def test_a_turn_is_a_picture_a_folder_and_a_scene(place, model):
    status, _, err = invoke("render", "--model", model, "--seed", 3, "--out", place / "turn.png", "--what", "gan,refined,depth",
                            "--n-frames", 5, "--to-scene", place / "scene", "--arch", "cpu")  # fmt: skip
    assert status == 0, err
    import imageio.v3 as imageio

    from taichi_nerf.scenes import load_scene

    picture = imageio.imread(place / "turn.png")
    assert picture.shape[1] / picture.shape[0] == pytest.approx(5 / 3)
    scene = load_scene(place / "scene")
    assert len(scene.names) == 5
    assert {name: len(views) for name, views in scene.splits.items()}["test"] == 1
    status, _, err = invoke("render", "--model", model, "--out", place / "turn.png", "--arch", "cpu")
    assert status == 1
    assert "--overwrite" in err


def test_generators_are_converted_and_sizes_told(place, model):
    status, out, err = invoke("convert", model, place / "theirs.pt")
    assert status == 0, err
    assert "16 pixels" in out
    status, _, err = invoke("convert", place / "theirs.pt", place / "ours")
    assert status == 0, err
    assert (place / "ours" / "generator.safetensors").is_file()
    status, _, err = invoke("convert", place / "theirs.pt", place / "ours")
    assert status == 1


def test_a_converted_file_gets_its_folder_and_one_that_cannot_be_written_is_one_line(place, model):
    status, _, err = invoke("convert", model, place / "new" / "g.pt")
    assert status == 0, err
    assert (place / "new" / "g.pt").is_file()
    status, _, err = invoke("convert", model, place / "set.npz" / "g.pt")
    assert status == 1
    assert "g.pt: cannot be written" in err


def test_a_missing_stage_names_the_command_that_makes_it(place):
    invoke("train", place / "set.npz", "--out", place / "bare", "--kimg", 0.01, *TINY)
    status, _, err = invoke("depth-pose", "--model", place / "bare", "--arch", "cpu")
    assert status == 1
    assert "directions.npz: is missing; `taichi-nerf generator directions` makes it" in err
    for command in (("directions",), ("render", "--out", place / "x.png"), ("evaluate", "--seeds", 3)):
        (place / "empty").mkdir(exist_ok=True)
        for folder, told in (("nothing", "no such model folder"), ("empty", "generator.safetensors: is missing")):
            status, _, err = invoke(*command, "--model", place / folder, "--arch", "cpu")
            assert status == 1
            assert told in err
            assert "generator train" in err


def test_a_plain_turn_needs_directions_alone_and_is_the_one_beside_the_refined(place, model):
    """Of an odd number of frames, so that one of them faces the camera."""
    import shutil

    bare = place / "turning"
    bare.mkdir()
    for name in ("generator.safetensors", "directions.npz"):
        shutil.copy(model / name, bare)
    shown = ("--seed", 3, "--n-frames", 4, "--share", 0.5, "--arch", "cpu")
    status, out, err = invoke("render", "--model", bare, "--out", place / "plain", "--what", "gan", *shown)
    assert status == 0, err
    assert out.startswith("5 frames")
    again = ("render", "--model", bare, "--out", place / "plain", "--what", "gan", *shown, "--n-frames", 3)
    assert "is there already; choose another --out, or add --overwrite" in invoke(*again)[2]
    assert len(list((place / "plain").iterdir())) == 5
    assert invoke(*again, "--overwrite")[0] == 0
    assert len(list((place / "plain").iterdir())) == 3
    (place / "plain.mp4").write_bytes(b"a former turn")
    status, _, err = invoke("render", "--model", bare, "--out", place / "plain.mp4", "--what", "gan", *shown, "--overwrite")
    assert status == 0, err
    assert b"ftyp" in (place / "plain.mp4").read_bytes()[:16]
    told = []
    turn = turn_seed(open_turns(ModelFolder(model)), open_depth_pose(ModelFolder(model)), None, 3, 4, share=0.5,
                     report=lambda done, text: told.append(done))  # fmt: skip
    assert len(told) > 2
    assert told == sorted(told)
    assert np.array_equal(turn_plainly(open_turns(ModelFolder(bare)), 3, 4, 0.5), turn.pictures["gan"])
    status, _, err = invoke("render", "--model", bare, "--out", place / "plain.png", "--what", "gan,depth", *shown)
    assert status == 1
    assert "generator depth-pose" in err


def test_a_model_is_copied_whole_and_in_16_bits(place, model):
    """What it shows differs by what 16 bits round."""
    from taichi_nerf.generator.copying import LARGE, halved
    from taichi_nerf.generator.evaluation.turned import turn_subjects
    from taichi_nerf.generator.refiner.training import depths_of

    for name, options in (("copied", ()), ("halved", ("--half",))):
        status, _, err = invoke("convert", model, place / name, *options)
        assert status == 0, err
    assert invoke("convert", model, place / "half.pt", "--half")[0] == 2
    state = {"weights": {"large": torch.rand(LARGE), "small": torch.rand(9), "number": torch.tensor(3)}, "n": 3}
    assert [tensor.dtype for tensor in halved(state)["weights"].values()] == [torch.float16, torch.float32, torch.int64]
    assert (place / "halved/depth_pose/encoder.pth").stat().st_size < 0.75 * (model / "depth_pose/encoder.pth").stat().st_size
    assert not (place / "halved" / "gan.safetensors").exists()

    def shown(folder):
        opened = ModelFolder(folder)
        depth_pose = open_depth_pose(opened)
        both = turn_subjects(open_turns(opened), depth_pose, open_refiner(opened)[0], [3, 4], 3)
        return both.refined.images, depths_of(depth_pose, both.gan_space.images[:, both.gan_space.middle])

    images, depths = shown(model)
    assert all(torch.equal(a, b) for a, b in zip(shown(place / "copied"), (images, depths), strict=True))
    for a, b in zip(shown(place / "halved"), (images, depths), strict=True):
        assert 0 < float((a - b).abs().max()) < 0.02


def test_labels_give_a_direction(place, model):
    import shutil

    copy = place / "labelled"
    shutil.copytree(model, copy)
    (place / "labels.txt").write_text("# seed label\n" + "\n".join(f"{seed} {seed % 5 - 2}" for seed in range(40)))
    status, _, err = invoke(
        "directions", "--model", copy, "--method", "labels", "--labels", place / "labels.txt", "--arch", "cpu"
    )
    assert status == 0, err
    (place / "labels.txt").write_text("1 2\n3 x\n")
    status, _, err = invoke(
        "directions", "--model", copy, "--method", "labels", "--labels", place / "labels.txt", "--arch", "cpu"
    )
    assert status == 1
    assert "line 2" in err


@pytest.mark.parametrize("method", ["labels", "label-means"])
def test_features_that_know_yaws_can_tell_the_labels(place, model, method):
    """The direction is that of the plane that fits what the features say of the generator's own images, or of their means."""
    import shutil

    from taichi_nerf.generator.directions import from_labels, load_directions
    from taichi_nerf.generator.evaluation.feature_files import load_features
    from taichi_nerf.generator.labels import FIRST_SEED, N_SEEDS
    from taichi_nerf.generator.stylegan2.generator import latents_of_seeds

    copy = place / f"told by {method}"
    shutil.copytree(model, copy)
    (copy / "features.safetensors").unlink(missing_ok=True)
    options = ("directions", "--model", copy, "--method", method, "--arch", "cpu")
    status, _, err = invoke(*options)
    assert status == 2
    assert "features that know yaws" in err
    status, _, err = invoke(*options, "--images", place / "set.npz", "--train-features", 2)
    assert status == 0, err
    folder = ModelFolder(copy)
    generator, features = folder.load_generator(), load_features(folder.features)
    codes = generator.mapping.w(latents_of_seeds(list(range(FIRST_SEED, FIRST_SEED + N_SEEDS)), generator.settings.z_dim))
    images = generator.synthesis(codes[:, None].expand(-1, generator.settings.n_layers, -1)).clamp(-1, 1)
    expected = from_labels(generator, codes, features.yaws(images), along_means=method == "label-means").components[0]
    assert float(load_directions(folder.directions).components[0] @ expected) == pytest.approx(1, abs=1e-3)
    assert json.loads((copy / "about.json").read_text())["directions"]["method"] == method


@pytest.mark.parametrize("options", [
    ("--images", "heads:5"),
    ("--train-features", 5),
    ("--labels", "labels.txt"),
    ("--method", "labels", "--labels", "labels.txt", "--images", "heads:5"),
])  # fmt: skip
def test_options_of_labels_are_refused_where_they_would_do_nothing(place, model, options):
    status, _, err = invoke("directions", "--model", model, *options, "--arch", "cpu")
    assert status == 2
    assert "label" in err


@pytest.mark.parametrize(("seeds", "told"), [
    ("9-3", "9-3 goes backwards: write 3-9"),
    ("3-", "expected seeds such as"),
    ("-3", "expected seeds such as"),
    ("1,x", "expected seeds such as"),
    ("", "is empty"),
])  # fmt: skip
def test_seeds_that_are_none_are_told_before_anything_is_rendered(seeds, told):
    status, _, err = invoke("evaluate", "--model", "builtin", "--seeds", seeds)
    assert status == 2
    assert told in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--out", "turn.mp5"), "turn.mp5: expected a name that ends in .mp4 or .gif"),
        (("--out", "turn.gif", "--fps", 60), "a .gif shows at most 50"),
        (("--to-scene", "."), "is there already"),
    ],
)
def test_a_turn_that_cannot_be_written_is_refused_before_it_is_made(place, model, monkeypatch, arguments, told):
    monkeypatch.chdir(place)
    monkeypatch.setattr("taichi_nerf.generator.model_folder.ModelFolder.load_generator", None)  # nothing is loaded
    status, _, err = invoke("render", "--model", model, *arguments, "--arch", "cpu")
    assert status == 1
    assert told in err


def test_steps_of_a_refiner_that_is_left_out_are_refused(model, tmp_path):
    arguments = ("--out", tmp_path / "turn.png", "--what", "gan", "--diffusion-steps", 5)
    status, _, err = invoke("render", "--model", model, *arguments)
    assert (status, "--diffusion-steps are of the refiner, which --what gan leaves out" in err) == (2, True)


@pytest.mark.parametrize("out", [("--out", "turn"), ("--out", "turn.png"), ("--to-scene", "head")])
def test_a_rate_without_a_video_is_refused(place, model, monkeypatch, out):
    monkeypatch.chdir(place)
    status, _, err = invoke("render", "--model", model, *out, "--fps", 12, "--arch", "cpu")
    assert (status, "--fps is of a video" in err) == (2, True), err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--layers", "²-³"), "expected the first and the last layer"),
        (("--layers", "40-50"), "codes 0 to 5"),
    ],
)
def test_layers_that_are_none_are_refused(model, arguments, told):
    status, _, err = invoke("directions", "--model", model, *arguments, "--arch", "cpu")
    assert status == 2
    assert told in err


def test_the_model_that_comes_along_is_refused_before_directions_are_measured(monkeypatch):
    monkeypatch.setattr("taichi_nerf.generator.directions.pca", None)
    status, _, err = invoke("directions", "--model", "builtin", "--arch", "cpu")
    assert status == 1
    assert "stays as it is" in err


@pytest.mark.parametrize(("size", "told"), [((48,), "power of two"), ((8, "--grow-at", 1), "half of 8 pixels")])
def test_sizes_that_are_none_are_refused_before_heads_are_rendered(tmp_path, size, told):
    status, _, err = invoke("train", "heads:2", "--out", tmp_path / "m", "--kimg", 1, *TINY, "--size", *size)
    assert status == 1
    assert told in err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("option", ["--inception", "--embedder"])
def test_a_network_that_is_missing_is_told_of_before_features_are_trained(place, model, monkeypatch, option):
    monkeypatch.setattr("taichi_nerf.generator.evaluation.instruments.make_features", None)
    train = ("--images", place / "set.npz", "--train-features", 5)
    status, _, err = invoke("evaluate", "--model", model, *train, option, place / "no.pt", "--arch", "cpu")
    assert status == 1
    assert "no.pt: no such file" in err


def test_seeds_are_numbers_and_ranges():
    assert Seeds().convert("500-502, 7,2000000-2000001", None, None) == [500, 501, 502, 7, 2000000, 2000001]


@pytest.mark.parametrize("command", ["train", "directions", "depth-pose", "refine", "evaluate", "render", "convert"])
def test_every_command_has_help_with_an_example(command):
    status, out, _ = invoke(command, "--help")
    assert status == 0
    assert "Example" in out
    assert "--debug" in out


def test_a_training_that_ends_before_it_grows_says_so(place, tmp_path):
    status, _, err = invoke("train", place / "set.npz", "--out", tmp_path / "m", "--kimg", 0.008, "--grow-at", 0.04, *TINY)
    assert status == 0
    assert "it stands at 8 pixels; 16 come after --grow-at 0.04" in err


def test_a_file_in_the_place_of_a_model_is_told(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    for command in (("render", "--seed", 1, "--out", tmp_path / "turn.png"), ("evaluate",), ("directions",)):
        status, _, err = invoke(command[0], "--model", file, *command[1:])
        assert (status, err.startswith(f"error: {file}: is a file; a model is a folder")) == (1, True), err
