"""Published networks: read, written, refused, and rendered as an independent transcription renders them."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball
from torch.testing import assert_close

from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.pictures import picture_of_view
from taichi_nerf.weight_files import WeightsError
from taichi_nerf.weights import nerf
from taichi_nerf.weights.object_arrays import read_arrays

WIDTHS = {"n_layers": 8, "n_hidden": 32, "skip": 4, "n_view": 16}


def theirs(generator, n_position=63, n_view=27):
    """A network under nerf-pytorch's names."""
    width = WIDTHS["n_hidden"]
    shapes = {f"pts_linears.{i}": (width, n_position if i == 0 else width + n_position * (i == 5)) for i in range(8)}
    shapes |= {"views_linears.0": (16, width + n_view), "feature_linear": (width, width), "alpha_linear": (1, width)}
    shapes["rgb_linear"] = (3, 16)
    state = {}
    for name, (n_out, n_in) in shapes.items():
        state[f"{name}.weight"] = torch.randn(n_out, n_in, generator=generator) * (2 / n_in) ** 0.5
        state[f"{name}.bias"] = torch.randn(n_out, generator=generator) * 0.1
    return state


def transcription(state, x, d):
    """Density and color as nerf-pytorch's documentation of the network has it, with none of our code."""
    gamma = lambda v, n: torch.cat([v] + [f(2.0**k * v) for k in range(n) for f in (torch.sin, torch.cos)], -1)  # noqa: E731
    linear = lambda name, h: h @ state[f"{name}.weight"].T + state[f"{name}.bias"]  # noqa: E731
    points, views = gamma(x, 10), gamma(d, 4)
    h = points
    for i in range(8):
        h = torch.relu(linear(f"pts_linears.{i}", h))
        if i == 4:
            h = torch.cat([points, h], -1)
    seen = torch.relu(linear("views_linears.0", torch.cat([linear("feature_linear", h), views], -1)))
    return torch.relu(linear("alpha_linear", h)[:, 0]), torch.sigmoid(linear("rgb_linear", seen))


def keras(state):
    """The list of arrays that the TensorFlow code saves."""
    names = [f"pts_linears.{i}" for i in range(8)] + ["feature_linear", "views_linears.0", "rgb_linear", "alpha_linear"]
    return [part for name in names for part in (state[f"{name}.weight"].T.numpy().copy(), state[f"{name}.bias"].numpy())]


def test_a_torch_checkpoint_renders_what_its_own_code_would(cpu, generator, tmp_path):
    coarse, fine = theirs(generator), theirs(generator)
    file = tmp_path / "200000.tar"
    torch.save({"global_step": 7, nerf.COARSE: coarse, nerf.FINE: fine, "optimizer_state_dict": {"state": {}}}, file)
    x = torch.rand(200, 3, generator=generator) * 4 - 2
    d = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator), dim=-1)
    for state, original in zip(nerf.read_torch(file), (coarse, fine), strict=True):
        density, color = nerf.field_of(state)(x, d)
        expected_density, expected_color = transcription(original, x, d)
        assert_close(density, expected_density, atol=1e-4, rtol=1e-4)
        assert_close(color, expected_color, atol=1e-4, rtol=1e-4)


def rendered(state, origins, directions, t):
    """Color over black and weights, as published: dense, by cumulative products."""
    x = origins[:, None] + t[..., None] * directions[:, None]
    d = directions[:, None].expand_as(x)
    density, color = (v.view(*t.shape, -1) for v in transcription(state, x.reshape(-1, 3), d.reshape(-1, 3)))
    gaps = torch.cat([t.diff(), torch.full_like(t[:, :1], 1e10)], -1)
    alpha = 1 - torch.exp(-density[..., 0] * gaps)
    light = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)[:, :-1]
    return (alpha * light)[..., None].mul(color).sum(1), alpha * light


def test_an_imported_pair_renders_the_picture_of_the_published_procedure(cpu, generator, tmp_path):
    """12 x 12 pixels, 64 + 128 samples, 32-wide networks of random weights."""
    scene, _ = views_of_ball(4, 12)
    coarse, fine = theirs(generator), theirs(generator)
    torch.save({nerf.COARSE: coarse, nerf.FINE: fine}, tmp_path / "a.tar")
    states = nerf.read_torch(tmp_path / "a.tar")
    config, _ = methods.choose(scene, SceneSettings("ball"), RunSettings("nerf", "blender"), torch.device("cpu"))
    config = replace(config, field=nerf.network_of(states[0]), encoding=nerf.encoding_of(states[0]))
    model = methods.make_model(config, scene, torch.device("cpu"))
    for field, state in zip((model.coarse, model.fine), states, strict=True):
        field.network.load_state_dict(state)
    found = picture_of_view(model, 1, (12, 12)).color.view(-1, 3)

    y, x = (torch.arange(144) // 12 + 0.5), (torch.arange(144) % 12 + 0.5)
    pose = torch.tensor(scene.cameras.camera_to_worlds[1]).float()
    focal = float(scene.cameras.intrinsics[1, 0])
    toward = torch.stack([(x - 6) / focal, (y - 6) / focal, torch.ones(144)], -1) @ pose[:, :3].T
    directions, origins = torch.nn.functional.normalize(toward, dim=-1), pose[:, 3].expand(144, 3)
    t = torch.linspace(scene.bounds.near, scene.bounds.far, 64).expand(144, -1)
    weights = rendered(coarse, origins, directions, t)[1][:, 1:-1] + 1e-5
    cdf = torch.cat([torch.zeros(144, 1), (weights / weights.sum(-1, keepdim=True)).cumsum(-1)], -1).numpy()
    middles = ((t[:, 1:] + t[:, :-1]) / 2).numpy()
    drawn = np.stack([np.interp(np.linspace(0, 1, 128), c, m) for c, m in zip(cdf, middles, strict=True)])
    both = torch.cat([t, torch.from_numpy(drawn).float()], -1).sort(-1).values
    golden = rendered(fine, origins, directions, both)[0].clamp(0, 1)
    assert golden.std() > 0.05
    assert (found - golden).abs().mean() < 1e-3
    assert (found - golden).abs().max() < 0.02


def test_a_tensorflow_list_is_the_same_network_transposed(cpu, generator, tmp_path):
    original = theirs(generator)
    listed = np.empty(24, object)
    listed[:] = keras(original)
    np.save(tmp_path / "model.npy", listed, allow_pickle=True)
    x = torch.rand(50, 3, generator=generator)
    density, color = nerf.field_of(nerf.read_tensorflow(tmp_path / "model.npy"))(x, x)
    expected = transcription(original, x, x)
    assert_close(density, expected[0], atol=1e-4, rtol=1e-4)
    assert_close(color, expected[1], atol=1e-4, rtol=1e-4)


def test_what_is_written_is_read_again(cpu, generator, tmp_path):
    state = nerf._from_torch(theirs(generator), tmp_path, "")
    nerf.write_torch(tmp_path / "a.tar", state, None, 5)
    nerf.write_tensorflow(tmp_path / "a.npy", state)
    again, none = nerf.read_torch(tmp_path / "a.tar")
    assert none is None
    for found in (again, nerf.read_tensorflow(tmp_path / "a.npy")):
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)
    with open(tmp_path / "a.npy", "rb") as stream:  # as the TensorFlow code loads it
        listed = np.load(stream, allow_pickle=True)
    assert [a.shape for a in listed] == [a.shape for a in keras(theirs(generator))]
    field = nerf.field_of(state)
    assert (field.settings.skip_after, field.encoding.n_frequencies) == (4, 10)


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("echo executed > executed",)


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("hostile.npy", np.array([Hostile(), 1], object), allow_pickle=True)
    with pytest.raises(WeightsError, match=r"hostile\.npy: is no list of arrays \(asks for posix\.system"):
        read_arrays(tmp_path / "hostile.npy")
    torch.save({nerf.COARSE: Hostile()}, "hostile.tar")
    with pytest.raises(WeightsError, match=r"hostile\.tar: is no checkpoint of weights alone"):
        nerf.read_torch(tmp_path / "hostile.tar")
    assert not (tmp_path / "executed").exists()


class MadeUpType:
    """A type of NumPy's with an object in it that it denies: elements would be addresses out of the file."""

    def __reduce__(self):
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)


class OfMadeUpType:
    def __reduce__(self):
        function, arguments = np.zeros(1).__reduce__()[:2]
        return function, arguments, (1, (1,), MadeUpType(), False, bytes(8))


def test_arrays_are_of_numbers_alone(tmp_path):
    np.save(tmp_path / "a.npy", np.array([OfMadeUpType(), 1], object), allow_pickle=True)
    with pytest.raises(WeightsError, match="holds elements of type V8"):
        read_arrays(tmp_path / "a.npy")
    kept = [np.arange(6, dtype=kind).reshape(2, 3) for kind in ("<f4", ">f8", "f2")] + [np.asfortranarray(np.eye(3)[:2])]
    listed = np.empty(len(kept), object)
    listed[:] = kept
    for protocol in (2, 4):
        with open(tmp_path / "b.npy", "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": listed.shape})
            pickle.dump(listed, stream, protocol)
        for found, array in zip(read_arrays(tmp_path / "b.npy"), kept, strict=True):
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", pickle.dumps([1, 2]), b"PK\x03\x04 nothing"])
def test_damaged_files_are_one_line(content, tmp_path):
    for name, read in (("a.npy", nerf.read_tensorflow), ("a.tar", nerf.read_torch)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError) as error:
            read(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
        assert "\n" not in str(error.value)
        with pytest.raises(WeightsError, match="no such file"):
            read(tmp_path / "none")


def test_other_networks_are_told_apart(generator, tmp_path):
    def told(change):
        state = theirs(generator)
        change(state)
        torch.save({nerf.COARSE: state}, tmp_path / "a.tar")
        with pytest.raises(WeightsError) as error:
            nerf.read_torch(tmp_path / "a.tar")
        return str(error.value)

    assert "rgb_linear" in told(lambda state: state.update({"rgb_linear_2.weight": torch.zeros(3)}))
    assert "color.bias is (4,), expected (3,)" in told(lambda state: state.update({"rgb_linear.bias": torch.zeros(4)}))
    assert "is incomplete" in told(lambda state: state.pop("feature_linear.weight"))
    assert "is None, expected" in told(lambda state: state.pop("alpha_linear.bias"))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(WeightsError, match="is one array of float64"):
        nerf.read_tensorflow(tmp_path / "one.npy")
