"""pixelNeRF's field: the published layout, invariances, and the same function written plainly in torch."""

import math

import pytest
import torch
from torch import nn

from taichi_nerf.fields.image_encoder import EncoderSettings
from taichi_nerf.fields.pixel_aligned_field import PixelAlignedField, PixelAlignedSettings, Sources

TINY = EncoderSettings("resnet10", 4, n_stages=3)


@pytest.fixture
def make_field(cpu, generator):
    def make(**changes):
        changes = {"n_hidden": 16, **changes}
        field = PixelAlignedField(PixelAlignedSettings(**changes), TINY, generator)
        with torch.no_grad():
            for name, parameter in field.named_parameters():
                if "fc_1.weight" in name or name.endswith("bias"):
                    parameter.normal_(0, 0.2, generator=generator)
        return field.eval()

    return make


def look_at(eye):
    forward = -nn.functional.normalize(eye, dim=0)
    right = nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 0, 1])), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    return torch.cat([rotation, -(rotation @ eye)[:, None]], -1)


@pytest.fixture
def sources(generator):
    eyes = 2 * nn.functional.normalize(torch.randn(3, 3, generator=generator), dim=-1)
    poses = torch.stack([look_at(eye) for eye in eyes])
    pictures = torch.rand(3, 3, 32, 24, generator=generator)
    return Sources(pictures, poses, torch.tensor([[40.0, 42, 12, 16]]).repeat(3, 1))


@pytest.fixture
def points(generator):
    positions = torch.rand(50, 3, generator=generator) - 0.5
    return positions, nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=-1)


def moved(poses, rotation, offset):
    """World to cameras, after the world was mapped by x → rotation x + offset."""
    turned = poses[:, :, :3] @ rotation.T
    return torch.cat([turned, poses[:, :, 3:] - turned @ offset[:, None]], -1)


def a_rotation(generator):
    skew = torch.randn(3, 3, generator=generator)
    return torch.linalg.matrix_exp(skew - skew.T)


def test_objects_whose_pictures_have_other_sizes_are_encoded_as_each_by_itself(cpu, sources, generator):
    field = PixelAlignedField(PixelAlignedSettings(n_hidden=8), EncoderSettings("resnet10", 4), generator).eval()
    other = sources._replace(pictures=torch.rand(3, 3, 21, 35, generator=generator))
    for together, alone in zip(field.encode_all([sources, other]), (field.encode(sources), field.encode(other)), strict=True):
        torch.testing.assert_close(together.coarse, alone.coarse)
        torch.testing.assert_close(together.fine, alone.fine)


def test_parameters_are_the_published_ones(generator):
    field = PixelAlignedField(PixelAlignedSettings(), EncoderSettings(), generator)
    state = field.state_dict()
    assert sum(parameter.numel() for parameter in field.parameters()) == 28_161_864
    assert len(state) == 278
    assert len([name for name in state if name.startswith("encoder.model.")]) == 216
    assert state["code._freqs"].flatten().tolist() == [1.5 * 2**k for k in range(6) for _ in range(2)]
    assert state["code._phases"].flatten().tolist() == pytest.approx([0, math.pi / 2] * 6)
    shapes = {
        "encoder.model.conv1.weight": (64, 3, 7, 7),
        "encoder.model.layer3.5.conv2.weight": (256, 256, 3, 3),
        "encoder.model.layer4.0.downsample.0.weight": (512, 256, 1, 1),
        "encoder.model.layer2.0.downsample.1.running_var": (128,),
        "mlp_coarse.lin_in.weight": (512, 42),
        "mlp_coarse.lin_z.2.weight": (512, 512),
        "mlp_fine.blocks.4.fc_1.bias": (512,),
        "mlp_fine.lin_out.weight": (4, 512),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize(("kind", "n"), [("resnet18", 11_176_512), ("resnet34", 21_284_672)])
def test_encoders_have_as_many_parameters_as_torchvisions_without_the_classifier(generator, kind, n):
    field = PixelAlignedField(PixelAlignedSettings(n_hidden=4), EncoderSettings(kind), generator)
    assert sum(parameter.numel() for parameter in field.encoder.parameters()) == n


def test_the_order_of_source_views_does_not_matter(make_field, sources, points):
    field = make_field()
    order = torch.tensor([2, 0, 1])
    shuffled = Sources(*(array[order] for array in sources[:3]))
    for fine in (False, True):
        before, after = field(field.encode(sources), *points, fine), field(field.encode(shuffled), *points, fine)
        torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


def test_turning_the_whole_world_changes_nothing(make_field, sources, points, generator):
    field, rotation = make_field(), a_rotation(generator)
    turned = sources._replace(world_to_cameras=moved(sources.world_to_cameras, rotation, torch.zeros(3)))
    before = field(field.encode(sources), *points)
    after = field(field.encode(turned), *(x @ rotation.T for x in points))
    torch.testing.assert_close(before, after, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("places", ["view", "view_moved"])
def test_moving_the_whole_world_matters_only_where_places_are_turned_and_not_moved(make_field, sources, points, places):
    field, offset = make_field(places=places), torch.tensor([0.3, -0.2, 0.4])
    there = sources._replace(world_to_cameras=moved(sources.world_to_cameras, torch.eye(3), offset))
    before = field(field.encode(sources), *points)
    after = field(field.encode(there), points[0] + offset, points[1])
    change = (before[1] - after[1]).abs().max()
    assert (change > 0.01) if places == "view" else (change < 2e-4)


@pytest.mark.parametrize("compat", ["centres", "repo"])
@pytest.mark.parametrize("fine", [False, True])
def test_it_is_the_function_written_plainly(make_field, sources, points, compat, fine):
    """Projection, grid_sample of the upsampled pyramid, sines, linear layers: as the paper says it."""
    field = make_field(compat=compat)
    positions, directions = points
    network = field.mlp_fine if fine else field.mlp_coarse
    features = field.encoder.features(sources.pictures)
    height, width = sources.pictures.shape[2:]
    rotation, offset = sources.world_to_cameras[:, :, :3], sources.world_to_cameras[:, None, :, 3]
    flip = torch.diag(torch.tensor([1.0, -1, -1]))  # to cameras that look along -z
    local = (positions @ rotation.mT + offset) @ flip
    focal, center = sources.intrinsics[:, None, :2], sources.intrinsics[:, None, 2:]
    uv = -local[..., :2] / local[..., 2:] * focal * torch.tensor([1.0, -1]) + center
    uv = uv - (0.5 if compat == "centres" else 0.0)
    size = torch.tensor([features.shape[3], features.shape[2]])
    scaling = size / (size - 1) * 2 / torch.tensor([width, height])
    looked_up = nn.functional.grid_sample(features, (uv * scaling - 1)[:, None], "bilinear", "border", align_corners=True)
    latent = looked_up[:, :, 0].permute(0, 2, 1)
    turned = positions @ rotation.mT @ flip
    waves = [turned] + [wave(1.5 * 2**k * turned) for k in range(6) for wave in (torch.sin, torch.cos)]
    x = network.lin_in(torch.cat([*waves, directions @ rotation.mT @ flip], -1))
    for index, block in enumerate(network.blocks):
        if index == 3:
            x = x.mean(0)
        if index < 3:
            x = x + network.lin_z[index](latent)
        x = x + block.fc_1(block.fc_0(x.relu()).relu())
    out = network.lin_out(x.relu())
    density, color = field(field.encode(sources), positions, directions, fine)
    torch.testing.assert_close(density, out[:, 3].relu(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(color, out[:, :3].sigmoid(), atol=1e-5, rtol=1e-4)


def test_features_are_looked_up_as_grid_sample_does(make_field, sources, points):
    """To 1e-5, of features without lin_z: the published scale S / (S - 1) 2 / W, corners aligned, border beyond."""
    from taichi_nerf.ops import image_warp

    features = make_field().encoder.features(sources.pictures)
    pixels, _ = image_warp.project_points(points[0] * 3, sources.world_to_cameras, sources.intrinsics)
    size = torch.tensor([features.shape[3], features.shape[2]])
    picture = torch.tensor([24.0, 32.0])
    on_grid = pixels * (size / (size - 1) * 2 / picture) - 1
    wanted = nn.functional.grid_sample(features, on_grid[:, None], "bilinear", "border", align_corners=True)[:, :, 0]
    found = image_warp.gather_features(features.permute(0, 2, 3, 1).contiguous(), pixels * size / picture, align="corners")
    torch.testing.assert_close(found, wanted.permute(0, 2, 1), atol=1e-5, rtol=1e-5)


def test_looking_in_parts_changes_nothing(make_field, sources, points):
    field = make_field()
    many = [x.repeat(400, 1) for x in points]  # 60,000 rows of 16 numbers: two parts
    encoded = field.encode(sources)
    torch.testing.assert_close(field.look(encoded, *many), tuple(x.detach() for x in field(encoded, *many)))


def test_gradients_are_finite_differences(make_field, sources, points):
    field = make_field(density="softplus").double()
    sources = Sources(*(array.double() for array in sources[:3]))
    positions, directions = (x[:4].double() for x in points)
    weight = field.mlp_coarse.lin_z[1].weight

    def ask(positions, pictures, weight_change):
        with torch.no_grad():
            kept = weight.clone()
        network = field.mlp_coarse
        original = network.lin_z[1].weight
        del network.lin_z[1].weight
        network.lin_z[1].weight = kept + weight_change
        encoded = field.encode(sources._replace(pictures=pictures))
        network.lin_z[1].weight = None
        del network.lin_z[1].weight
        network.lin_z[1].weight = original
        return field(encoded, positions, directions)

    field.dtype = torch.float64
    change = torch.zeros_like(weight, requires_grad=True)
    small = sources.pictures[:, :, :8, :8].clone().requires_grad_()
    density, color = ask(positions, small, change)
    grads = torch.autograd.grad(density.sum() + color.sum(), [change, small])
    for leaf, gradient in zip((change, small), grads, strict=True):
        place = gradient.abs().flatten().argmax()
        step = torch.zeros(leaf.numel(), dtype=torch.float64)
        step[place] = 1e-6
        step = step.view_as(leaf)
        sides = []
        for sign in (1, -1):
            arguments = (small + sign * step, change) if leaf is small else (small, change + sign * step)
            found = ask(positions, *arguments)
            sides.append(float((found[0].sum() + found[1].sum()).detach()))
        numeric = (sides[0] - sides[1]) / 2e-6
        assert numeric == pytest.approx(float(gradient.flatten()[place]), rel=1e-4)


def test_places_that_a_source_sees_through_are_empty(make_field, sources):
    """The object's outline in a picture of 32 x 24 pixels is its middle; a point may be filled if all views have it inside."""
    field = make_field()
    filled = torch.zeros(3, 32, 24, dtype=torch.bool)
    filled[:, 8:24, 6:18] = True
    sources = sources._replace(filled=filled)
    middle, aside = torch.zeros(1, 3), sources.world_to_cameras[0, 0, :3][None] * 0.4  # 8 pixels to the right in view 0
    assert field.may_be_filled(sources, torch.cat([middle, aside])).tolist() == [True, False]
    beyond = sources.world_to_cameras[0, 0, :3][None] * 5  # outside of view 0, and whatever the others say
    known = [view for view in (1, 2) if not field.may_be_filled(Sources(*(x[[view]] for x in sources)), beyond).item()]
    assert field.may_be_filled(sources, beyond).item() == (not known)
