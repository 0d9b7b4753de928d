"""Weights that others published: the same image by their network and by ours, and pickles that run nothing."""

import argparse
import io
import pickle
import struct
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.nn import functional

from taichi_nerf.generator.stylegan2 import published
from taichi_nerf.generator.stylegan2.generator import Generator, GeneratorSettings
from taichi_nerf.generator.stylegan2.nvidia_pickle import PickleError, read_networks

scalar = np.float64(0).__reduce__()[0]  # what NumPy's numbers are pickled as a call of


@pytest.fixture
def generator():
    torch.manual_seed(5)
    made = Generator(GeneratorSettings(32, 24, 24, 3, 512, 32)).requires_grad_(False)
    for name, parameter in made.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            parameter += 0.3 * torch.randn_like(parameter)
    made.mapping.w_avg.normal_()
    return made


class TheirsOfRosinality:
    """StyleGAN2's forward pass on rosinality's names: weights of every image by themselves, grouped convolutions."""

    def __init__(self, state, n_mapping):
        self.state, self.n_mapping = state, n_mapping

    def mapped(self, z):
        w = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for i in range(1, self.n_mapping + 1):
            weight, bias = self.state[f"style.{i}.weight"], self.state[f"style.{i}.bias"]
            w = functional.linear(w, weight * 0.01 / weight.shape[1] ** 0.5)
            w = functional.leaky_relu(w + 0.01 * bias, 0.2) * 2**0.5
        return w

    def modulated(self, x, w, name, demodulate=True, up=False):
        weight = self.state[f"{name}.conv.weight"]
        modulation = self.state[f"{name}.conv.modulation.weight"]
        style = functional.linear(w, modulation / w.shape[1] ** 0.5, self.state[f"{name}.conv.modulation.bias"])
        _, n_out, n_in, k, _ = weight.shape
        each = weight / (n_in * k * k) ** 0.5 * style.view(len(x), 1, n_in, 1, 1)
        if demodulate:
            each = each * torch.rsqrt(each.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        n, _, height, width = x.shape
        x = x.reshape(1, n * n_in, height, width)
        if not up:
            kernels = each.view(n * n_out, n_in, k, k)
            return functional.conv2d(x, kernels, padding=k // 2, groups=n).view(n, n_out, height, width)
        kernels = each.transpose(1, 2).reshape(n * n_in, n_out, k, k)
        wide = functional.conv_transpose2d(x, kernels, stride=2, groups=n).view(n, n_out, 2 * height + 1, 2 * width + 1)
        return self.blurred(wide, self.state[f"{name}.conv.blur.kernel"], (1, 1))

    @staticmethod
    def blurred(x, kernel, padding):
        n, c, height, width = x.shape
        x = functional.pad(x.reshape(n * c, 1, height, width), (padding[0], padding[1]) * 2)
        x = functional.conv2d(x, kernel.flip(0, 1)[None, None])
        return x.view(n, c, *x.shape[2:])

    def styled(self, x, w, name, noise, up=False):
        x = self.modulated(x, w, name, up=up)
        x = x + self.state[f"{name}.noise.weight"] * self.state[f"noises.{noise}"]
        x = x + self.state[f"{name}.activate.bias"].view(1, -1, 1, 1)
        return functional.leaky_relu(x, 0.2) * 2**0.5

    def image(self, w, n_blocks):
        x = self.styled(self.state["input.input"].repeat(len(w), 1, 1, 1), w, "conv1", "noise_0")
        image = self.modulated(x, w, "to_rgb1", demodulate=False) + self.state["to_rgb1.bias"]
        for j in range(n_blocks):
            x = self.styled(x, w, f"convs.{2 * j}", f"noise_{2 * j + 1}", up=True)
            x = self.styled(x, w, f"convs.{2 * j + 1}", f"noise_{2 * j + 2}")
            n, c, height, width = image.shape
            wide = image.new_zeros(n, c, 2 * height, 2 * width)
            wide[:, :, ::2, ::2] = image
            wide = self.blurred(wide, self.state[f"to_rgbs.{j}.upsample.kernel"], (2, 1))
            image = wide + self.modulated(x, w, f"to_rgbs.{j}", demodulate=False) + self.state[f"to_rgbs.{j}.bias"]
        return image


def test_rosinalitys_network_makes_the_same_image_of_the_same_weights(generator):
    z = torch.randn(3, 24)
    theirs = TheirsOfRosinality(published.to_rosinality(generator.state_dict()), 3)
    ours = generator(z)
    error = (theirs.image(theirs.mapped(z), 3) - ours).abs().max() / ours.abs().max()
    assert error < 1e-4  # measured 2e-6


def test_both_layouts_round_trip(generator, tmp_path):
    published.write_rosinality(tmp_path / "mine.pt", generator)
    again = published.read_generator(tmp_path / "mine.pt")
    assert again.settings == generator.settings
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in generator.state_dict().items())
    z = torch.randn(2, 24)
    assert (again(z, truncation=0.7) - generator(z, truncation=0.7)).abs().max() < 1e-4


def test_a_checkpoint_of_rosinalitys_training_truncates_towards_the_mean_of_its_codes(generator, tmp_path):
    """Options beside the weights, and no mean of w."""
    state = published.to_rosinality(generator.state_dict())
    torch.save({"g": state, "g_ema": state, "args": argparse.Namespace(size=32), "ada_aug_p": 0.0}, tmp_path / "010000.pt")
    read = published.read_generator(tmp_path / "010000.pt")
    z = torch.randn(4, 24)
    assert torch.equal(read(z), generator(z))
    codes = TheirsOfRosinality(state, 3).mapped(torch.randn(2**16, 24))
    spread = (read.mapping.w_avg - codes.mean(0)) / codes.std(0)
    assert spread.abs().max() < 0.04  # measured 0.020; five standard errors of 2^14 codes
    assert (codes.mean(0) / codes.std(0)).abs().max() > 1  # zeros would be far off


class Persistent:
    """How torch_utils.persistence pickles a module: a function, and its class as a text beside its state."""

    def __init__(self, module, source="raise SystemExit('the source in the pickle was run')"):
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": type(module).__name__,
            "state": {
                "training": False,
                "_parameters": OrderedDict((n, p) for n, p in module._parameters.items()),
                "_buffers": OrderedDict(module._buffers),
                "_modules": OrderedDict((n, Persistent(m)) for n, m in module._modules.items()),
            },
        }

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@pytest.fixture
def nvidia(monkeypatch):
    """Their module, as far as pickling looks at it."""
    for name in ("torch_utils", "torch_utils.persistence"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("a reader called it")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj


@pytest.mark.usefixtures("nvidia")
def test_nvidias_pickles_are_read_without_running_their_source(generator, tmp_path):
    file = tmp_path / "network.pkl"
    data = {"G": None, "D": None, "G_ema": Persistent(generator), "training_set_kwargs": {"resolution": 32}, "augment_pipe": None}
    file.write_bytes(pickle.dumps(data))
    read = published.read_generator(file)
    z = torch.randn(2, 24)
    assert read.settings == generator.settings
    assert torch.equal(read(z), generator(z))
    published.write_rosinality(tmp_path / "mine.pt", read)
    assert (published.read_generator(tmp_path / "mine.pt")(z) - generator(z)).abs().max() < 1e-4


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def ran(mark):
    open(mark, "w").close()


@pytest.mark.parametrize("place", ["alone", "in the dictionary", "as a storage"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(place, tmp_path):
    import os

    mark, file = tmp_path / "ran", tmp_path / "network.pkl"
    attack = Hostile(os.system, f"touch {mark}")
    if place == "in the dictionary":
        attack = {"G_ema": attack}
    if place == "as a storage":
        inner = io.BytesIO()
        pickle.dump(Hostile(os.system, f"touch {mark}"), inner)
        attack = {"G_ema": Hostile(torch.storage._load_from_bytes, inner.getvalue())}
    file.write_bytes(pickle.dumps(attack))
    with pytest.raises(PickleError, match=r"network\.pkl: ") as refused:
        read_networks(file)
    assert not mark.exists()
    assert "\n" not in str(refused.value)
    pickle.loads(pickle.dumps(Hostile(os.system, f"touch {mark}")))
    assert mark.exists()  # the attack works where pickles are trusted


class MadeUp:
    """A type of NumPy's with an object in it that it denies, and an element of it whose bytes are an address."""

    def __init__(self, kind, *rest):
        self.kind, self.rest = kind, rest

    def __reduce__(self):
        return (np.dtype, (self.kind, False, True), *self.rest)


def made_up_type():
    return MadeUp("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))


def test_a_made_up_type_turns_no_bytes_into_objects(tmp_path):
    class Secret:
        pass

    secret, file = Secret(), tmp_path / "network.pkl"
    element = Hostile(scalar, made_up_type(), struct.pack("P", id(secret)))
    file.write_bytes(pickle.dumps(Hostile(np.ndarray, element)))
    with pytest.raises(PickleError) as refused:
        read_networks(file)
    assert "Secret" not in str(refused.value)


@pytest.mark.usefixtures("nvidia")
def test_modules_that_hold_each_other_twice_do_not_keep_the_reader_for_hours(tmp_path):
    """A few kilobytes, of which a walk through all paths would see 2^30 modules."""
    module, file = Persistent(torch.nn.Linear(1, 1)), tmp_path / "network.pkl"
    for _ in range(30):
        outer = Persistent(torch.nn.Identity())
        outer.meta["state"]["_modules"] = OrderedDict(a=module, b=module)
        module = outer
    file.write_bytes(pickle.dumps({"G_ema": module}))
    with pytest.raises(PickleError, match="more modules than any network"):
        read_networks(file)


@pytest.mark.usefixtures("nvidia")
def test_a_tensor_that_repeats_one_number_is_refused(tmp_path):
    module, file = torch.nn.Linear(1, 1), tmp_path / "network.pkl"
    module.register_buffer("big", torch.zeros(1).expand(10**6, 10**6))
    file.write_bytes(pickle.dumps({"G_ema": Persistent(module)}))
    with pytest.raises(PickleError, match="more numbers than the file has"):
        read_networks(file)


def test_sizes_that_a_file_claims_cost_no_memory(generator, tmp_path):
    """The next layers of a mapping from one number to a million would be four terabytes each."""
    state = published.to_rosinality(generator.state_dict())
    torch.save({"g_ema": {**state, "style.1.weight": torch.zeros(10**6, 1)}}, tmp_path / "wide.pt")
    with pytest.raises(PickleError, match=r"wide\.pt: mapping\.fc0\.bias: found and expected shapes"):
        published.read_generator(tmp_path / "wide.pt")
    states = generator.state_dict()
    for name in ("synthesis.bx.conv1.weight", "synthesis.b4096.conv1.weight", f"synthesis.b{'9' * 5000}.conv1.weight"):
        with pytest.raises(PickleError):
            published.generator_of({**states, name: torch.zeros(1, 1, 3, 3)}, "x")


def test_other_files_are_told_apart_in_one_line(generator, tmp_path):
    missing, text, other = tmp_path / "no.pkl", tmp_path / "text.pkl", tmp_path / "other.pt"
    text.write_text("hello")
    torch.save({"g": generator.state_dict()}, other)
    for file, says in ((missing, "no such file"), (text, "text.pkl: "), (other, "expected an entry g_ema")):
        with pytest.raises(PickleError, match=says):
            published.read_generator(file)


def test_a_generator_of_other_shapes_is_refused(generator):
    state = generator.state_dict()
    with pytest.raises(PickleError, match=r"mapping\.fc1\.bias"):
        published.generator_of({n: v for n, v in state.items() if n != "mapping.fc1.bias"}, "x")
    with pytest.raises(PickleError, match="conditioned on classes"):
        published.generator_of({**state, "mapping.embed.weight": torch.zeros(1)}, "x")
