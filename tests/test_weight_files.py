"""Files that are given as weights and are something else, or more than that."""

import pickle
from argparse import Namespace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from taichi_nerf.fields.image_encoder import EncoderSettings, ImageEncoder
from taichi_nerf.generator.depth_pose.files import load_part
from taichi_nerf.generator.stylegan2.published import read_generator
from taichi_nerf.metrics import Lpips
from taichi_nerf.priors.prior import load_prior
from taichi_nerf.weight_files import WeightsError, read_weights
from taichi_nerf.weights import nerf, pixelnerf

ENCODER = ImageEncoder(EncoderSettings("resnet18", 4), torch.Generator())
READERS = {
    "DiffusioNeRF's checkpoint": load_prior,
    "a checkpoint of nerf-pytorch": nerf.read_torch,
    "pixel_nerf_latest of the authors": pixelnerf.read_checkpoint,
    "torchvision's weights of resnet18": lambda file: pixelnerf.load_resnet(ENCODER, file),
    "rosinality's checkpoint": read_generator,
    "x.pt of Monodepth2": load_part,
    "weights of LPIPS": Lpips,
}


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def write_text(file):
    file.write_text("these are no weights\n")


def write_picture(file):
    imageio.imwrite(file, np.zeros((8, 8, 3), np.uint8), extension=".png")


def write_nothing(file):
    file.write_bytes(b"")


def write_broken(file):
    torch.save({"a": torch.zeros(100)}, file)
    file.write_bytes(file.read_bytes()[:200])


def write_harmful(file):
    torch.save({"a": Harmful()}, file)


def write_harmful_pickle(file):
    file.write_bytes(pickle.dumps({"a": Harmful()}, protocol=2))


def write_newer_pickle(file):
    file.write_bytes(pickle.dumps({"a": Harmful()}, protocol=4))


def write_claiming(file):
    torch.save({"a": [{"b": torch.zeros(1).expand(10**6, 10**6)}]}, file)


KINDS = {
    write_text: "is no file of weights, but something else",
    write_picture: "is no file of weights, but something else",
    write_nothing: "is no file of weights, but something else",
    write_broken: "is no checkpoint of weights alone: it is damaged, or something else",
    write_harmful: "is no checkpoint of weights alone: it asks for exec, and nothing in a file is executed",
    write_harmful_pickle: "is no checkpoint of weights alone: it asks for ",
    write_newer_pickle: "is no checkpoint of weights alone: it is damaged, or something else",
    write_claiming: "claims more numbers than it holds",
}


@pytest.mark.parametrize("expected", READERS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_file_of_something_else_is_told_in_one_line_with_what_was_expected(kind, expected, tmp_path):
    kind(tmp_path / "x.pt")
    with pytest.raises(ValueError, match="expected") as told:
        READERS[expected](tmp_path / "x.pt")
    assert str(told.value).startswith(f"{tmp_path / 'x.pt'}: {KINDS[kind]}")
    assert f"; expected {expected}" in str(told.value)
    assert "\n" not in str(told.value)


def test_the_options_of_a_training_program_are_read_and_what_torch_allows_stays_as_it_was(tmp_path):
    torch.save({"a": torch.ones(2), "args": Namespace(size=16, path=None, rates=(0.1, 0.2))}, tmp_path / "x.pt")
    found = read_weights(tmp_path / "x.pt", "any")
    assert (found["a"].tolist(), vars(found["args"])) == ([1, 1], {"size": 16, "path": None, "rates": (0.1, 0.2)})
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(tmp_path / "x.pt", weights_only=True)
    torch.save({"args": Namespace(harm=Harmful())}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="asks for exec, and nothing in a file is executed"):
        read_weights(tmp_path / "x.pt", "any")


def test_weights_are_read_in_both_forms_of_torch(tmp_path):
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save({"a": torch.arange(3)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert read_weights(tmp_path / name, "any")["a"].tolist() == [0, 1, 2]
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(tmp_path / "none.pt", "any")
