"""Fields: networks against plain torch, space against its formula, the hash grid field against itself.

Measured on a CPU: networks in float32 agree with `nn.Sequential` within 2e-6 of the largest value.
"""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from taichi_nerf.fields.hash_grid_field import LARGEST_LOG_DENSITY, OF_NO_IMAGE, HashGridField, HashGridSettings
from taichi_nerf.fields.mlp import CHUNK, PROBES, Mlp, best_precision
from taichi_nerf.fields.space import unit_positions
from taichi_nerf.ops.hash_grid import level_layout

BOX = torch.tensor([[-1.0, -2, -1], [3.0, 2, 1]])
SMALL = HashGridSettings(n_levels=4, log2_table_size=12, base_resolution=4, max_resolution=32, n_hidden=16)


def sequential(mlp: Mlp) -> nn.Sequential:
    """The same network of torch's own parts."""
    layers: list[nn.Module] = []
    for number, weight in enumerate(mlp.weights):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=len(mlp.biases) > 0)
        linear.weight = nn.Parameter(weight.detach().clone())
        if len(mlp.biases):
            linear.bias = nn.Parameter(mlp.biases[number].detach().clone())
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def of_new(n_rows, widths, precision="float32", biases=False):
    generator = torch.Generator().manual_seed(n_rows)
    mlp = Mlp(widths, generator, precision, biases)
    for bias in mlp.biases:
        nn.init.normal_(bias, generator=generator)
    rows, cotangent = (torch.randn(n_rows, width, generator=generator) for width in (widths[0], widths[-1]))
    return mlp, rows, cotangent


def close(actual, expected, share):
    """Within a share of the largest value."""
    assert actual.shape == expected.shape
    if expected.numel():
        assert (actual - expected).abs().max() <= share * expected.abs().max().clamp_min(1e-30)


def small_field(contraction="none", n_images=3, **settings):
    made = HashGridSettings(**{**vars(SMALL), **settings})
    field = HashGridField(made, BOX, contraction, n_images, torch.Generator().manual_seed(3))
    nn.init.uniform_(field.table, -1, 1, generator=torch.Generator().manual_seed(4))  # as if it had been trained
    return field


def places(n, generator):
    directions = nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return BOX[0] + torch.rand(n, 3, generator=generator) * (BOX[1] - BOX[0]), directions


@pytest.mark.parametrize("n_rows", [0, 1, CHUNK, CHUNK + 1, 20_000])
@pytest.mark.parametrize("widths", [(32, 64, 16), (8, 16, 16, 3), (5, 2)])
@pytest.mark.parametrize("biases", [False, True])
def test_a_network_equals_linear_layers_with_relu_between_them(n_rows, widths, biases):
    mlp, rows, cotangent = of_new(n_rows, widths, biases=biases)
    plain = sequential(mlp)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    out, expected = mlp(ours), plain(theirs)
    close(out, expected, 2e-6)
    out.backward(cotangent)
    expected.backward(cotangent)
    close(ours.grad, theirs.grad, 5e-6)
    for weight, layer in zip(mlp.weights, plain[::2], strict=True):
        close(weight.grad, layer.weight.grad, 2e-5)
    for bias, layer in zip(mlp.biases, plain[::2], strict=False):
        close(bias.grad, layer.bias.grad, 2e-5)


def test_weights_have_the_same_gradient_whether_or_not_rows_want_one():
    mlp, rows, cotangent = of_new(CHUNK + 100, (8, 16, 4))
    mlp(rows).backward(cotangent)
    alone = [weight.grad.clone() for weight in mlp.weights]
    mlp.zero_grad()
    mlp(rows.requires_grad_()).backward(cotangent)
    assert all(torch.equal(a, weight.grad) for a, weight in zip(alone, mlp.weights, strict=True))


def test_rows_have_a_gradient_also_when_the_network_is_frozen():
    mlp, rows, cotangent = of_new(50, (8, 16, 4))
    plain = sequential(mlp.requires_grad_(False))
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    mlp(ours).backward(cotangent)
    plain(theirs).backward(cotangent)
    close(ours.grad, theirs.grad, 5e-6)


def test_a_callers_autocast_changes_nothing():
    mlp, rows, cotangent = of_new(20, (8, 16, 3))
    out = mlp(rows)
    out.backward(cotangent)
    known = [weight.grad.clone() for weight in mlp.weights]
    mlp.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = mlp(rows)
        again.backward(cotangent)
    assert torch.equal(again, out)
    assert all(torch.equal(weight.grad, grad) for weight, grad in zip(mlp.weights, known, strict=True))


def test_without_gradients_nothing_is_kept():
    mlp, rows, _ = of_new(10, (8, 16, 4))
    with torch.no_grad():
        assert mlp(rows).grad_fn is None


@pytest.mark.parametrize("n_rows", [1, CHUNK + 1])
def test_bfloat16_differs_from_float32_by_its_rounding(n_rows):
    """A number keeps 8 bits, so each layer is off by about 2^-8 of its largest value."""
    mlp, rows, cotangent = of_new(n_rows, (32, 64, 16), "bfloat16")
    plain = sequential(mlp)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    out, expected = mlp(ours), plain(theirs)
    assert out.dtype == torch.bfloat16
    assert ours.dtype == mlp.weights[0].dtype == torch.float32
    close(out.float(), expected, 2**-6)
    out.backward(cotangent.bfloat16())
    expected.backward(cotangent)
    # Where a hidden number is near zero, rounding may decide whether ReLU lets a gradient through: compare as vectors.
    for found, right in [
        (ours.grad, theirs.grad),
        *((w.grad, p.weight.grad) for w, p in zip(mlp.weights, plain[::2], strict=True)),
    ]:
        assert found.dtype == torch.float32
        assert (found - right).norm() <= 0.06 * right.norm()  # measured: 0.038


@pytest.mark.parametrize(("can", "best"), [({}, "float32"), ({PROBES[0]: False}, "float32"), ({PROBES[1]: True}, "bfloat16")])
def test_the_best_precision_is_float32_where_torch_cannot_tell(can, best, monkeypatch):
    """As torch 2.4, with which no training on a processor began."""
    for name in PROBES:
        monkeypatch.delattr(torch.cpu, name, raising=False)
        if name in can:
            monkeypatch.setattr(torch.cpu, name, lambda name=name: can[name], raising=False)
    assert best_precision(torch.device("cpu")) == best


def test_the_best_precision_is_one_that_networks_take():
    assert hasattr(torch, best_precision(torch.device("cpu")))


def test_without_contraction_the_box_fills_the_cube():
    points = torch.stack([BOX[0], BOX.mean(0), BOX[1], torch.tensor([5.0, 0, 0])])
    expected = torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3, [1.5, 0.5, 0.5]])
    assert_close(unit_positions(points, BOX, "none"), expected)


def test_contraction_is_the_published_formula():
    box = torch.tensor([[-2.0] * 3, [2.0] * 3])
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [4, 0, 0], [0, -8, 0], [6, 8, 0]])
    contracted = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1.5, 0, 0], [0, -1.75, 0], [0.6 * 1.8, 0.8 * 1.8, 0]])
    assert_close(unit_positions(points, box, "sphere"), contracted / 4 + 0.5)


def test_all_of_space_is_contracted_into_the_cube(generator):
    far = nn.functional.normalize(torch.randn(500, 3, generator=generator), dim=-1) * 10 ** torch.linspace(-3, 15, 500)[:, None]
    inside = unit_positions(far, BOX, "sphere")
    assert (inside >= 0).all()
    assert (inside <= 1).all()
    radii = (4 * (inside - 0.5)).norm(dim=-1)
    assert radii.max() <= 2 + 1e-6
    assert_close(radii[-1], torch.tensor(2.0))


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_positions_have_exact_gradients(contraction, generator):
    points = 3 * torch.randn(40, 3, generator=generator).double()
    points[0] = BOX.mean(0)  # the centre, where a norm has no gradient
    box = BOX.double()
    assert torch.autograd.gradcheck(lambda x: unit_positions(x, box, contraction), points.requires_grad_())


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_a_glance_tells_the_density_of_a_full_look(backend, generator, contraction):
    field = small_field(contraction)
    positions, directions = places(500, generator)
    density, color = field(positions, directions)
    glance = field.glance(positions)
    assert torch.equal(glance.density, density.detach())
    assert not glance.density.requires_grad
    assert ((color > 0) & (color < 1)).all()


@pytest.mark.parametrize("contraction", ["none", "sphere"])
def test_features_of_a_glance_change_no_value_and_no_gradient(backend, generator, contraction):
    """On lavapipe the table's gradient is added up atomically, in any order."""
    field = small_field(contraction)
    positions, directions = places(300, generator)
    found = []
    for features in (None, field.glance(positions).features):
        field.zero_grad()
        at = positions.clone().requires_grad_()
        density, color = field(at, directions, features=features)
        (density.log().sum() + (color * color).sum()).backward()
        found.append([density, color, at.grad, *(p.grad for p in field.parameters() if p.numel())])
    for anew, reused in zip(*found, strict=True):
        close(reused, anew, 1e-6)
    assert (found[0][2] != 0).any()


def test_only_shown_features_are_believed(cpu, generator):
    """What is shown is what comes out; the table is not looked at again."""
    field = small_field()
    positions, directions = places(20, generator)
    shown = torch.randn(20, SMALL.n_levels * SMALL.n_features, generator=generator)
    assert_close(field(positions, directions, features=shown)[0], field.density_of(field.density_mlp(shown)))


def test_density_is_the_exponential_of_the_first_number(cpu):
    field = small_field(log_density=0.5)
    geometry = torch.tensor([[-3.0, 7], [0, 7], [2, 7], [50, 7]], requires_grad=True)
    density = field.density_of(geometry)
    assert_close(density, torch.tensor([-2.5, 0.5, 2.5, LARGEST_LOG_DENSITY]).exp())
    density.sum().backward()
    assert_close(geometry.grad, torch.stack([density.detach(), torch.zeros(4)], -1))  # beyond the border as at the border


def test_density_of_bfloat16_is_float32(cpu):
    geometry = torch.tensor([[1.0, 2]], dtype=torch.bfloat16, requires_grad=True)
    density = small_field().density_of(geometry)
    density.sum().backward()
    assert (density.dtype, geometry.grad.dtype) == (torch.float32, torch.bfloat16)


def test_appearance_is_that_of_the_image_and_without_one_the_mean(backend, generator):
    field = small_field(n_appearance=2)
    with torch.no_grad():
        field.appearance.copy_(torch.tensor([[0.0, 1], [2, 3], [7, -1]]))
    asked = torch.tensor([2, 0, 0, 1], dtype=torch.int32)
    assert field.appearance_of(asked, 4).tolist() == [[7, -1], [0, 1], [0, 1], [2, 3]]
    assert field.appearance_of(None, 2).tolist() == [[3, 1], [3, 1]]
    assert field.appearance_of(torch.tensor([1, OF_NO_IMAGE], dtype=torch.int32), 2).tolist() == [[2, 3], [3, 1]]
    positions, directions = (x[:1].expand(4, -1).contiguous() for x in places(1, generator))
    density, color = field(positions, directions, asked)
    assert density.unique().numel() == 1  # appearance colors things, it does not move them
    assert torch.equal(color[1], color[2])
    assert not torch.equal(color[0], color[1])
    color.sum().backward()
    assert (field.appearance.grad != 0).any(-1).all()


def test_an_image_that_the_field_does_not_have_is_refused(backend):
    field = small_field(n_appearance=2)
    for wrong in (3, -2, 100):
        with pytest.raises((IndexError, RuntimeError), match="index out of range"):
            field.appearance_of(torch.tensor([0, wrong], dtype=torch.int32), 2)


def in_place_of(field, other):
    """Ways in which a field comes by the parameters of another."""
    yield lambda: field.load_state_dict(other.state_dict(), assign=True)
    yield lambda: nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(other.parameters()), field.parameters())
    yield lambda: [setattr(field, "table", nn.Parameter(other.table.detach().clone())), field.load_state_dict(other.state_dict())]


@pytest.mark.parametrize("way", range(3))
def test_a_table_that_takes_the_place_of_another_is_the_one_that_is_read(way, cpu, generator):
    """In bfloat16 a rounded copy of the table is kept; a new tensor's versions begin anew, so these tell little."""
    field, other = (small_field(precision="bfloat16").eval() for _ in range(2))
    nn.init.uniform_(other.table.data, -1, 1, generator=generator)
    assert other.table._version == field.table._version
    positions, directions = places(50, generator)
    before, wanted = field(positions, directions)[0], other(positions, directions)[0]
    assert torch.equal(torch.func.functional_call(field, dict(other.named_parameters()), (positions, directions))[0], wanted)
    assert torch.equal(field(positions, directions)[0], before)
    list(in_place_of(field, other))[way]()
    assert torch.equal(field(positions, directions)[0], wanted)
    assert not torch.equal(before, wanted)


def test_nowhere_is_a_place_to_look_at(backend):
    density, color = small_field()(torch.zeros(0, 3), torch.zeros(0, 3))
    assert (density.shape, color.shape) == ((0,), (0, 3))
    assert small_field().glance(torch.zeros(0, 3)).density.shape == (0,)


def test_levels_come_in_coarse_to_fine():
    """At 0 a third of them counts; each comes in smoothly; at 1 the field is that without weights."""
    made = HashGridSettings(**{**vars(SMALL), "n_levels": 6})
    fields = [HashGridField(made, BOX, "none", 1, torch.Generator().manual_seed(3), coarse_to_fine=c) for c in (False, True)]
    plain, field = fields
    generator = torch.Generator().manual_seed(0)
    for part in fields:
        nn.init.uniform_(part.table, -1, 1, generator=torch.Generator().manual_seed(4))
    positions, directions = places(200, generator)
    shown = []
    for progress in (0.0, 0.375, 1.0, 2.0):
        field.sharpen(progress)
        shown.append(field.level_weights.view(6, 2)[:, 0].tolist())
    assert shown[0] == [1, 1, 0, 0, 0, 0]
    assert shown[1] == pytest.approx([1, 1, 1, 0.5, 0, 0])
    assert shown[2] == shown[3] == [1] * 6
    for ours, theirs in zip(field(positions, directions), plain(positions, directions), strict=True):
        assert torch.equal(ours, theirs)
    field.sharpen(0.0)
    seen = field.glance(positions)
    assert_close(seen.density, field(positions, directions, features=seen.features)[0])
    density, _ = field(positions, directions)
    density.sum().backward()
    first = field.table.grad.abs().sum(-1)
    n_coarse = sum(level.size for level in level_layout(**field.layout)[:2])
    assert first[:n_coarse].any()
    assert not first[n_coarse:].any()
    assert {"level_weights"} <= set(field.state_dict())
