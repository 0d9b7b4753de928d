"""Directions in W against what is known of a linear map, and the yaw of a ball that is known to turn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from taichi_nerf.generator.directions import (
    DirectionsError,
    centered,
    factorised,
    from_labels,
    load_directions,
    moved,
    pca,
    save_directions,
    style_weights,
)
from taichi_nerf.generator.stylegan2.generator import Generator, GeneratorSettings
from taichi_nerf.generator.turns import Turns
from taichi_nerf.generator.yaw_choice import choose_yaw, flow

from turning_sphere import Ball


@pytest.fixture(scope="module")
def ball():
    return Ball()


def test_principal_components_are_the_axes_along_which_codes_were_scaled(ball):
    found = pca(ball, 40_000, 3)
    assert torch.allclose(found.components.abs(), torch.eye(4)[:3], atol=0.02)
    assert torch.allclose(found.deviations, torch.tensor([1.5, 1.0, 0.5]), rtol=0.03)
    assert torch.allclose(found.mean, torch.zeros(4), atol=0.03)
    assert found.variance_ratio.tolist() == pytest.approx([2.25 / 3.5625, 1 / 3.5625, 0.25 / 3.5625], abs=0.01)


def test_components_do_not_depend_on_how_codes_are_gathered(ball, monkeypatch):
    whole = pca(ball, 3000, 4)
    monkeypatch.setattr("taichi_nerf.generator.directions.BATCH", 700)
    assert torch.allclose(pca(ball, 3000, 4).variance_ratio, whole.variance_ratio, atol=0.02)


def test_the_factorised_direction_changes_styles_the_most():
    torch.manual_seed(1)
    generator = Generator(GeneratorSettings(16, 8, 12, 2, 128, 16)).requires_grad_(False)
    found = factorised(generator, (1, 3), 4)
    weights = [w / w.norm(dim=1, keepdim=True) for w in style_weights(generator)[1:3]]
    effect = torch.cat(weights)
    best = (effect @ found.components[0]).norm()
    random = torch.nn.functional.normalize(torch.randn(2000, 12), dim=1)
    assert best >= (effect @ random.T).norm(dim=0).max()
    assert best == pytest.approx(torch.linalg.matrix_norm(effect, 2).item(), rel=1e-4)
    assert found.yaw_layers == (1, 3)


SCALES = torch.tensor([1.5, 1.0, 0.5, 0.25])  # of the ball's codes


def test_a_linear_label_gives_back_its_direction(ball):
    codes = ball.mapping.w(torch.randn(3000, 4, generator=torch.Generator().manual_seed(2)))
    slope = torch.tensor([0.2, -1.0, 0.5, 0.0])
    found = from_labels(ball, codes, codes @ slope)
    assert torch.allclose(found.components[0], slope / slope.norm(), atol=0.05)
    sides = from_labels(ball, codes, (codes @ slope).sign())
    assert sides.components[0] @ slope / slope.norm() > 0.97


@pytest.mark.parametrize("labels", [torch.ones(20), torch.full((20,), torch.nan)])
def test_labels_that_tell_nothing_are_refused(ball, labels):
    with pytest.raises(ValueError, match="labels: expected finite numbers that are not all the same"):
        from_labels(ball, torch.randn(20, 4), labels)


def test_along_means_codes_move_as_they_differ_where_their_labels_do(ball):
    """Of normal codes the mean of those with a label moves by cov(w) n / sd(n w) as the label does by its deviation."""
    codes = ball.mapping.w(torch.randn(3000, 4, generator=torch.Generator().manual_seed(2)))
    slope = torch.tensor([0.2, -1.0, 0.5, 0.0])
    found = from_labels(ball, codes, codes @ slope, along_means=True)
    assert torch.allclose(found.normals[0], slope / slope.norm(), atol=0.05)
    expected = SCALES.square() * slope / (SCALES * slope).norm()
    assert torch.allclose(found.yaw, expected, atol=0.05)


def test_codes_that_are_centred_along_means_are_as_codes_with_that_label_are(ball):
    """Against those among many whose label is nearly the mean's: the same spread along every axis."""
    codes = ball.mapping(torch.randn(100_000, 4, generator=torch.Generator().manual_seed(3)))
    slope = torch.tensor([0.6, -1.0, 0.5, 0.0])
    found = from_labels(ball, codes[:, 0], codes[:, 0] @ slope, along_means=True)
    facing = centered(codes, found, (0, 10))[:, 0]
    assert (facing @ slope).abs().max() < 0.1 * (codes[:, 0] @ slope).std()
    near = codes[(codes[:, 0] @ slope).abs() < 0.05, 0]
    assert torch.allclose(facing.std(0), near.std(0), rtol=0.05)


def test_an_edit_moves_the_chosen_layers_and_can_be_undone():
    codes, direction = torch.randn(2, 6, 3), torch.randn(3)
    edited = moved(codes, direction, torch.tensor([2.0, -1.0]), (1, 4))
    assert torch.equal(edited[:, [0, 4, 5]], codes[:, [0, 4, 5]])
    assert torch.allclose(edited[0, 1:4] - codes[0, 1:4], 2 * direction.expand(3, 3), atol=1e-6)
    assert torch.allclose(moved(edited, direction, torch.tensor([-2.0, 1.0]), (1, 4)), codes, atol=1e-6)


def test_centred_codes_have_the_coordinate_of_the_mean(ball):
    found = pca(ball, 20_000, 2)
    codes = ball.mapping(torch.randn(5, 4))
    facing = centered(codes, found, (0, 10))
    assert torch.allclose((facing[:, 0] - found.mean) @ found.yaw, torch.zeros(5), atol=1e-4)
    assert torch.allclose(facing[:, 0, 1], codes[:, 0, 1], atol=0.2)


def test_files_are_ganspaces_and_come_back(ball, tmp_path):
    found = replace(pca(ball, 20_000, 3), truncation=0.5)
    save_directions(tmp_path / "d.npz", found)
    with np.load(tmp_path / "d.npz") as data:
        assert data["lat_comp"].shape == (3, 1, 4)
        assert data["lat_mean"].shape == (1, 4)
        theirs = {name: data[name] for name in data.files if not name.startswith(("yaw", "truncation"))}
    again = load_directions(tmp_path / "d.npz", 4)
    assert torch.equal(again.components, found.components)
    assert again.normals is None
    save_directions(tmp_path / "n.npz", replace(found, normals=found.components.roll(1, 0)))
    assert torch.equal(load_directions(tmp_path / "n.npz").normals, found.components.roll(1, 0))
    assert again.truncation == 0.5
    np.savez(tmp_path / "theirs.npz", **theirs)
    assert load_directions(tmp_path / "theirs.npz").yaw_component == 0
    assert load_directions(tmp_path / "theirs.npz").truncation == 0.8
    with pytest.raises(DirectionsError, match="codes of 4 numbers, the generator's have 8"):
        load_directions(tmp_path / "d.npz", 8)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(DirectionsError, match=r"bad\.npz"):
        load_directions(tmp_path / "bad.npz")


@pytest.mark.parametrize("damage", [b"", "method", "flag"])
def test_a_damaged_file_is_told_in_one_line_that_names_it(ball, tmp_path, damage):
    file = tmp_path / "d.npz"
    save_directions(file, pca(ball, 1000, 2))
    if damage == "method":  # of compression, in the table of contents
        content = bytearray(file.read_bytes())
        content[content.rindex(b"PK\x01\x02") + 10] = 99
        damage = bytes(content)
    elif damage == "flag":  # "encrypted"
        content = bytearray(file.read_bytes())
        content[content.rindex(b"PK\x01\x02") + 8] |= 1
        damage = bytes(content)
    file.write_bytes(damage)
    with pytest.raises(DirectionsError, match=r"d\.npz: is no file of directions"):
        load_directions(file)


def test_what_a_file_of_directions_lacks_is_named(tmp_path):
    np.savez(tmp_path / "d.npz", images=np.zeros(3))
    with pytest.raises(DirectionsError, match=r"d\.npz: is no file of directions \(it lacks \w+\)"):
        load_directions(tmp_path / "d.npz")


def test_codes_that_are_turned_are_truncated_as_the_directions_say(ball):
    found = pca(ball, 20_000, 3)
    whole, half = (Turns(ball, replace(found, truncation=share)).codes([3, 4]) for share in (1.0, 0.5))
    assert whole[:, :, 1:].abs().min() > 1e-3
    assert torch.allclose(half[:, :, 1:], 0.5 * whole[:, :, 1:], atol=1e-2)  # number 0 is the turn, and that of the mean


def test_a_component_beyond_the_first_is_measured_if_it_is_asked_for(ball):
    """Number 13 of fourteen turns as number 0 does, the other way round."""
    few = pca(ball, 20_000, 4)
    order = [*range(4), *[1] * 9, 0]
    flip = torch.tensor([1.0] * 13 + [-1.0])[:, None]
    many = replace(few, components=few.components[order] * flip, deviations=few.deviations[order])
    assert {c.component for c in choose_yaw(ball, many, n_subjects=4)[1]} == set(range(12))
    found = {c.component: c for c in choose_yaw(ball, many, n_subjects=4, also=13)[1]}
    assert set(found) == {*range(12), 13}
    assert found[13].sign == -found[0].sign
    assert found[13].parallax == pytest.approx(found[0].parallax, rel=0.01)


def test_flow_measures_how_far_a_picture_moved():
    at = torch.arange(64).float()
    wave = lambda shift: torch.sin((at - shift) / 3)[None, None, None, :] * torch.cos(at / 4)[None, None, :, None]  # noqa: E731
    u, v, left = flow(wave(0.0).expand(1, 3, 64, 64), wave(0.4).expand(1, 3, 64, 64))
    assert u[0, 8:-8, 8:-8].median().item() == pytest.approx(0.4, abs=0.03)
    assert v[0, 8:-8, 8:-8].abs().median() < 0.05
    assert left[..., 8:-8, 8:-8].abs().mean() < 0.02


def test_the_direction_that_turns_is_chosen_over_the_one_that_colors(ball):
    found, candidates = choose_yaw(ball, pca(ball, 20_000, 4), n_subjects=8)
    assert found.yaw_component == 0
    by_component = {c.component: c for c in candidates}
    assert by_component[0].score > 3 * by_component[1].score
    turned = ball.synthesis(moved(ball.mapping(torch.zeros(1, 4)), found.yaw, torch.tensor([0.3]), found.yaw_layers))
    u, _, _ = flow(ball.synthesis(ball.mapping(torch.zeros(1, 4))), turned)
    assert u[0, 24:40, 24:40].mean() > 0  # the near side moves to the right
