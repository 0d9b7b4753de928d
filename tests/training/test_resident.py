"""Training that stays on the device against the same training through torch: pictures, gradients, checkpoints."""

import math
from dataclasses import replace

import pytest
import torch
from small_run import configured, trained

from taichi_nerf import losses, runtime
from taichi_nerf.metrics import psnr
from taichi_nerf.rays import Rays
from taichi_nerf.rendering import render_rays
from taichi_nerf.resident.pipeline import Chance
from taichi_nerf.runtime import DeviceArray
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.settings import apply_settings
from taichi_nerf.training.methods import make_model
from taichi_nerf.training.ngp_model import NgpModel
from taichi_nerf.training.pictures import picture_of_view, truth_of_view
from taichi_nerf.training.resident_model import ResidentNgpModel
from taichi_nerf.training.run import load_run, read_settings
from taichi_nerf.training.run_folder import RunFolder
from taichi_nerf.training.trainer import Trainer

FIXED = Chance(7, shift=False, look=0.0)


@pytest.fixture
def gpu(backend):
    if backend.arch == "cpu":
        pytest.skip("on processors torch's memory is the device's")
    return backend


def pair(small_scene, gpu, *settings):
    """The same model through torch and on the device."""
    config, scene = configured(small_scene, steps=20)
    config = apply_settings(config, ["field.precision=float32", "culling.chance=0", *settings])
    through_torch = make_model(apply_settings(config, ["backend.resident=false"]), scene, gpu.torch_device)
    on_device = make_model(apply_settings(config, ["backend.resident=true"]), scene, gpu.torch_device)
    assert type(through_torch) is NgpModel
    assert isinstance(on_device, ResidentNgpModel)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # something to see: density that changes from place to place
        through_torch.field.table.copy_(torch.randn(through_torch.field.table.shape, generator=generator))
        through_torch.sampler.thickness.copy_(torch.rand(through_torch.sampler.thickness.shape, generator=generator))
        through_torch.sampler.least_density.fill_(0.5)
        through_torch.sampler.pack()
    on_device.load_state_dict(through_torch.state_dict())
    return through_torch, on_device


def some_rays(model, n=300):
    generator = torch.Generator().manual_seed(2)
    device = model.box.device
    pixels = (40 * torch.rand(n, 2, generator=generator)).to(device)
    views = torch.randint(len(model.rig.models), (n,), generator=generator, dtype=torch.int32).to(device)
    return pixels, views, model.rig.rays(pixels, views)


@pytest.mark.parametrize("settings", [(), ("loss.spread=0.1", "culling.early_stop=0.1")])
def test_a_rendering_and_its_gradients_are_those_of_the_same_rays_through_torch(small_scene, gpu, settings):
    plain, resident = pair(small_scene, gpu, *settings)
    pixels, views, rays = some_rays(plain)
    expected = render_rays(plain.field, plain.sampler, rays, None, plain.config.culling)
    seen = resident.pipeline.render(resident.pipeline.rays(pixels, views), len(views), FIXED, with_samples=True)
    assert seen.n_marched == expected.n_marched
    assert len(seen.weights) == len(expected.rendered.weights) > 500
    torch.testing.assert_close(seen.samples.spans, expected.samples.spans)
    for own, name in ((seen.color, "color"), (seen.opacity, "opacity"), (seen.depth, "depth"), (seen.weights, "weights")):
        torch.testing.assert_close(own, getattr(expected.rendered, name), atol=2e-5, rtol=1e-4)
    generator = torch.Generator().manual_seed(3)
    parts = (seen.color, seen.opacity, seen.depth, seen.weights)
    cotangents = [torch.randn(x.shape, generator=generator).to(x.device) for x in parts]

    def loss(color, opacity, depth, weights):
        return sum((x * c).sum() for x, c in zip((color, opacity, depth, weights), cotangents, strict=True))

    loss(seen.color, seen.opacity, seen.depth, seen.weights).backward()
    out = expected.rendered
    loss(out.color, out.opacity, out.depth, out.weights).backward()
    field, on_device = plain.field, resident.on_device
    pairs = [(on_device.table.grad_to_torch(), field.table.grad)]
    for network, mlp in ((on_device.density, field.density_mlp), (on_device.color, field.color_mlp)):
        pairs.append((network.weights.grad_to_torch(), torch.cat([weight.grad.reshape(-1) for weight in mlp.weights])))
    for own, truth in pairs:
        assert truth.abs().max() > 1e-3
        assert (own - truth).norm() < 1e-4 * truth.norm()  # measured: 1e-6


def test_a_gradient_that_is_no_number_is_found_wherever_it_is(small_scene, gpu):
    _, resident = pair(small_scene, gpu)
    field = resident.on_device
    field.zero_grad()
    for network in (field.density, field.color):
        n = network.weights.shape[0]
        for place, value, is_fine in (
            (0, 3.4e38, True), (0, math.nan, False), (n // 2, math.inf, False), (n - 1, -math.inf, False), (n - 1, 1e-45, True),
        ):  # fmt: skip
            gradient = torch.zeros(n)
            gradient[place] = value
            network.weights.grad.from_numpy(gradient.cpu().numpy())
            assert field.has_finite_gradients() is is_fine
        network.weights.zero_grad()


def test_the_spread_of_weights_and_its_gradients_are_those_of_the_loss(small_scene, gpu):
    plain, resident = pair(small_scene, gpu)
    pixels, views, rays = some_rays(plain)
    batch = render_rays(plain.field, plain.sampler, rays, None, plain.config.culling)
    expected = losses.spread(batch.rendered.weights, batch.samples)
    expected.backward()
    seen = resident.pipeline.render(resident.pipeline.rays(pixels, views), len(views), FIXED, with_spread=True)
    torch.testing.assert_close(seen.spread.mean(), expected, rtol=1e-4, atol=1e-7)
    seen.spread.mean().backward()
    truth = plain.field.table.grad
    assert (resident.on_device.table.grad_to_torch() - truth).norm() < 1e-4 * truth.norm()


def test_training_on_the_device_minds_the_spread(small_scene, gpu):
    found = []
    for settings in ([], ["loss.spread=10", "loss.spread_fit=none"]):
        config, scene = configured(small_scene, steps=20)
        config = apply_settings(config, ["backend.resident=true", *settings])
        trainer = Trainer(config, scene, gpu.torch_device)
        trainer.model.progress = 0.5
        found.append(trainer.compare(trainer.draw(300)).loss.item())
    assert found[1] > 1.05 * found[0]


def test_rays_made_by_torch_and_rays_made_on_the_device_look_alike(small_scene, gpu):
    _, resident = pair(small_scene, gpu)
    pixels, views, rays = some_rays(resident)
    with torch.no_grad():
        own = resident.pipeline.render(resident.pipeline.rays(pixels, views), len(views), FIXED)
        taken = resident.pipeline.render(resident.pipeline.take(Rays(*rays)), len(views), FIXED)
    torch.testing.assert_close(own.color, taken.color)


@pytest.mark.parametrize("nearer", [0.3, 3.0])
def test_eyes_closer_and_farther_than_cameras_see_what_they_do_through_torch(small_scene, gpu, nearer):
    plain, resident = (model.eval() for model in pair(small_scene, gpu))
    rays = some_rays(plain, 256)[2]
    moved = Rays(rays.origins.detach() * nearer, rays.directions.detach(), rays.radii.detach())
    own, expected = (model.picture(moved, (16, 16)) for model in (resident, plain))
    assert expected.opacity.mean() > 0.1
    torch.testing.assert_close(own.color, expected.color, atol=2e-5, rtol=1e-4)


def test_where_room_is_lacking_nothing_is_lost(small_scene, gpu):
    _, resident = pair(small_scene, gpu)
    pixels, views, _ = some_rays(resident)
    pipeline = resident.pipeline
    with torch.no_grad():
        expected = pipeline.render(pipeline.rays(pixels, views), len(views), FIXED)
        pipeline._took, pipeline._guess = (len(views), [len(views), 0, len(views)]), None
        seen = pipeline.render(pipeline.rays(pixels, views), len(views), FIXED)
    assert expected.n_marched > 2**12  # more than the least room
    assert seen.n_marched == expected.n_marched
    torch.testing.assert_close(seen.color, expected.color, rtol=0, atol=0)


def test_room_does_not_grow_with_the_rays_while_a_grid_empties(small_scene, gpu):
    """As in the first seconds of a training: each ray has a tenth of the samples that it had, so there are twice as many rays."""
    plain, resident = pair(small_scene, gpu)
    (few, of_few, _), (many, of_many, _) = some_rays(plain, 500), some_rays(plain, 1000)
    pipeline, sizes, per_ray = resident.pipeline, [], []
    pipeline.give_back = lambda room, rays: sizes.append(room.size)

    def render(pixels, views):
        with torch.no_grad():
            per_ray.append(pipeline.render(pipeline.rays(pixels, views), len(views), FIXED).n_marched / len(views))

    render(few, of_few)
    render(few, of_few)  # what the first one found is known
    plain.sampler.thickness.view(-1, 16)[:, 1:] = 0
    plain.sampler.pack()
    resident.load_state_dict(plain.state_dict())
    render(few, of_few)
    render(many, of_many)
    assert max(per_ray[2:]) < 0.3 * per_ray[1]
    assert sizes[1].first > 2**13  # more than the least room
    assert all(now <= before for now, before in zip(sizes[3][1:], sizes[1][1:], strict=True)), sizes


def test_rays_that_end_early_twice_have_room_for_both_marches(small_scene, gpu):
    """In fog with few samples a ray both marches end by their number, and all that they find is kept."""
    plain, resident = pair(small_scene, gpu, "occupancy.max_samples_per_ray=8")
    with torch.no_grad():
        plain.field.table.zero_()
        plain.sampler.thickness.fill_(1)
        plain.sampler.pack()
    resident.load_state_dict(plain.state_dict())
    pixels, views, rays = some_rays(plain)
    expected = render_rays(plain.field, plain.sampler, rays, None, plain.config.culling)
    assert len(expected.samples.t_starts) > 4096  # more than rays times samples, rounded up
    seen = resident.pipeline.render(resident.pipeline.rays(pixels, views), len(views), FIXED)
    torch.testing.assert_close(seen.color, expected.rendered.color, atol=2e-5, rtol=1e-4)


OTHERWISE = ("optimiser.beta1=0.6", "optimiser.beta2=0.9", "optimiser.table_decay=0.1", "optimiser.mlp_decay=0.3")


@pytest.mark.parametrize("settings", [(), OTHERWISE])
def test_a_step_of_the_optimiser_is_torchs_and_its_state_goes_there_and_back(small_scene, gpu, settings):
    plain, resident = pair(small_scene, gpu, *settings)
    ours, theirs = resident.optimiser(), plain.optimiser()
    for group in (*ours.param_groups, *theirs.param_groups):
        group["lr"] = 0.3 * group["first_lr"]  # as the schedule does
    pixels, views, rays = some_rays(plain)
    for _ in range(3):
        for model, optimiser in ((plain, theirs), (resident, ours)):
            optimiser.zero_grad()
            if model is plain:
                out = render_rays(plain.field, plain.sampler, rays, None, plain.config.culling).rendered
            else:
                out = resident.pipeline.render(resident.pipeline.rays(pixels, views), len(views), FIXED)
            (out.color.square().sum() + out.opacity.sum()).backward()
            optimiser.step()
    resident._is_ahead = True
    state, expected = ours.state_dict(), theirs.state_dict()
    assert state["param_groups"] == expected["param_groups"]
    for key, moments in expected["state"].items():
        assert float(state["state"][key]["step"]) == float(moments["step"]) == 3
        for name in ("exp_avg", "exp_avg_sq"):
            assert (state["state"][key][name] - moments[name]).norm() < 1e-2 * moments[name].norm()
    theirs.load_state_dict(state)
    fresh = resident.optimiser()
    fresh.load_state_dict(theirs.state_dict())
    again = fresh.state_dict()
    for key, moments in state["state"].items():
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(again["state"][key][name], moments[name], rtol=0, atol=0)
    resident.pull()
    for own, truth in zip(resident.field.parameters(), plain.field.parameters(), strict=True):
        if truth.numel():
            torch.testing.assert_close(own, truth, atol=1e-4, rtol=1e-3)


def test_epsilon_is_the_optimisers_on_the_device(small_scene, gpu):
    """So large a one makes steps as short as gradients are."""
    _, resident = pair(small_scene, gpu, "optimiser.epsilon=100.0")
    optimiser, network = resident.optimiser(), resident.on_device.density
    for group in optimiser.param_groups:
        group["lr"] = 1.0
    before = network.weights.to_torch().clone()
    network.weights.grad.fill(2.0)
    optimiser.step()
    torch.testing.assert_close(network.weights.to_torch(), before - 2 / 102, rtol=1e-5, atol=1e-6)


def test_terms_of_ones_own_are_shown_what_they_are_through_torch(small_scene, gpu):
    """The rays of the step, and the weights of its samples, whose gradients teach the field."""
    config, scene = configured(small_scene, steps=20)
    found = []

    def term(moment):
        found.append(moment)
        return moment.seen.rendered.weights.square().sum()

    trainer = Trainer(apply_settings(config, ["backend.resident=true"]), scene, gpu.torch_device, terms=[term])
    assert isinstance(trainer.model, ResidentNgpModel)
    trainer.compare(trainer.draw(64))
    (moment,) = found
    samples, weights = moment.seen.samples, moment.seen.rendered.weights
    assert len(moment.shown.rays.origins) == 64
    per_ray = torch.zeros(64).index_add(0, samples.ray_indices.cpu(), weights.detach().cpu())
    torch.testing.assert_close(per_ray, moment.seen.rendered.opacity.detach().cpu(), atol=1e-5, rtol=0)
    trainer.optimiser.zero_grad()
    term(moment).backward()
    assert trainer.model.on_device.table.grad_to_torch().abs().max() > 0


def test_the_density_network_decays_by_its_weights_on_the_device(small_scene, gpu):
    """The gradient of geometry.density_decay: of the weights as they are, after a step that torch's did not see."""
    config, scene = configured(small_scene, steps=20)
    config = apply_settings(config, ["backend.resident=true", "geometry.density_decay=0.5"])
    trainer = Trainer(config, scene, gpu.torch_device)
    trainer.step()
    (term,), found = trainer.terms, []
    trainer.terms = [lambda moment: found.append(moment) or torch.zeros(())]
    trainer.compare(trainer.draw(64))
    network = trainer.model.on_device.density
    network.weights.grad.fill(1)
    term(found[0]).backward()
    torch.testing.assert_close(network.weights.grad_to_torch(), 1 + network.weights.to_torch(), rtol=1e-6, atol=0)
    assert not torch.equal(network.weights.to_torch(), network._flat(network.matrices))


def test_the_grid_learns_what_the_sampler_would(small_scene, gpu):
    """All cells at once, of a field that is the same everywhere: where in a cell one looks does not matter."""
    plain, resident = pair(small_scene, gpu, "occupancy.decay=0.3", "occupancy.rise=2.0", "occupancy.least_alpha=0.1")
    with torch.no_grad():
        plain.field.table.fill_(0.3)
        plain.sampler.thickness.mul_(3)  # some of which is thicker than what is seen now even when it has decayed
    plain.sampler.stretch = 2.0
    resident.load_state_dict(plain.state_dict())
    plain.sampler.update(lambda at: plain.field.glance(at).density, 1.0, torch.Generator().manual_seed(0))
    resident.grid.update(1.0, torch.Generator().manual_seed(0))
    resident._is_ahead = True
    resident.pull()
    for name in ("thickness", "least_density", "bits"):
        torch.testing.assert_close(getattr(resident.sampler, name), getattr(plain.sampler, name), rtol=1e-4, atol=1e-6)


def test_cells_are_all_looked_at_first_and_a_share_of_them_later(small_scene, gpu):
    config, scene = configured(small_scene, steps=20)
    settings = ["backend.resident=true", "grid.every=3", "grid.full_until=7", "grid.share=0.25"]
    model, looks = make_model(apply_settings(config, settings), scene, gpu.torch_device), []
    model.grid.update = lambda share, generator: looks.append((n_steps, share))
    for n_steps in range(14):
        model.before_step(n_steps, n_steps / 20, torch.Generator())
    assert looks == [(0, 1.0), (3, 1.0), (6, 1.0), (9, 0.25), (12, 0.25)]
    assert model.progress == 13 / 20  # by which the loss of spread grows


def test_space_that_no_view_shows_is_empty_on_the_device_too(small_scene, gpu):
    config, scene = configured(small_scene, steps=20)
    narrow = replace(scene, cameras=replace(scene.cameras, intrinsics=scene.cameras.intrinsics * [3, 3, 1, 1]))
    trainer = Trainer(apply_settings(config, ["backend.resident=true"]), narrow, gpu.torch_device)
    thickness, bits = trainer.model.grid.thickness.to_torch(), trainer.model.grid.bits.to_torch()
    assert (thickness < 0).float().mean() > 0.1
    torch.testing.assert_close(thickness.cpu(), trainer.model.sampler.thickness.cpu())
    assert torch.equal(bits.cpu(), trainer.model.sampler.bits.cpu())


def test_what_is_asked_of_the_field_is_what_was_learned_last(small_scene, gpu):
    """Density, color, and normals of pictures, while the device is ahead of torch."""
    config, scene = configured(small_scene, steps=20)
    trainer = Trainer(apply_settings(config, ["backend.resident=true"]), scene, gpu.torch_device)
    model = trainer.model
    at = (torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) - 0.5).to(gpu.torch_device)
    _, _, rays = some_rays(model, 64)
    asked = (
        lambda: model.density(at),
        lambda: model.color(at, at).detach(),
        lambda: model.picture(rays, (8, 8), with_normals=True).normals,
    )
    for ask in asked:
        trainer.step()
        found = ask()
        model.pull()
        model.load_state_dict(model.state_dict())  # torch's and the device's are the same from here on
        torch.testing.assert_close(found, ask(), atol=1e-5, rtol=1e-4)


def test_random_numbers_of_a_step_are_others_each_time_and_shift_rays_and_look_closer_by_chance(small_scene, gpu):
    config, scene = configured(small_scene, steps=20)
    model = make_model(apply_settings(config, ["backend.resident=true", "culling.chance=0.25"]), scene, gpu.torch_device)
    generator = torch.Generator().manual_seed(0)
    first, second = (model._chance(generator) for _ in range(2))
    assert first.seed != second.seed
    assert (first.shift, first.look) == (True, 0.25)


def test_a_quarter_of_the_cells_is_visited_once_each(small_scene, gpu):
    _, resident = pair(small_scene, gpu)
    before = torch.full_like(resident.sampler.thickness, 100.0)
    resident.sampler.thickness.copy_(before)
    resident.grid.push()
    resident.grid.update(0.25, torch.Generator().manual_seed(0))
    changed = resident.grid.thickness.to_torch() != before
    assert changed.view(-1, 4).sum(-1).eq(1).all()


def test_a_run_goes_on_on_another_backend_as_good_as_it_was(small_scene, gpu, tmp_path):
    """GPU, processor, GPU, by its folder, as `evaluate` and `train --resume` take it: what one leaves the other shows alike. Its
    settings stay as they were chosen."""
    config, scene = configured(small_scene, steps=24)
    config = apply_settings(config, ["backend.resident=true", "batch.n_rays_most=64"])
    trained(tmp_path / "run", config, scene, stop_after=8)
    left = [psnr_of_a_test_view(load_run(tmp_path / "run", gpu.torch_device))]
    for arch in ("cpu", gpu.arch):
        device = runtime.start(arch).torch_device
        run = load_run(tmp_path / "run", device)
        assert isinstance(run.model, ResidentNgpModel) == (arch != "cpu")
        assert abs(psnr_of_a_test_view(run) - left[-1]) < 0.1
        trained(tmp_path / "run", read_settings(RunFolder.open(tmp_path / "run")), scene, resume=True, stop_after=8)
        assert read_settings(RunFolder.open(tmp_path / "run")).backend.resident is True
        left.append(psnr_of_a_test_view(load_run(tmp_path / "run", device)))
    assert load_run(tmp_path / "run", device).n_steps == 24
    assert left[2] > left[0] + 1, left


def psnr_of_a_test_view(run):
    view = int(run.scene.splits["test"][0])
    picture = picture_of_view(run.model, view, run.scene.cameras.sizes[view])
    truth, alpha, _ = truth_of_view(run.scene, view, True)
    return psnr(picture.color.cpu(), truth * alpha[..., None], None)


def test_by_default_a_training_stays_on_a_real_gpu_that_copies_alone(small_scene, backend, monkeypatch):
    config, scene = configured(small_scene, steps=20)
    for name, emulated in (("llvmpipe (LLVM 15.0.6, 256 bits)", True), ("AMD Radeon RX 7900", False)):
        monkeypatch.setattr(runtime, "_current", replace(runtime.current(), device_name=name))
        assert runtime.current().is_software == emulated
        model = make_model(config, scene, backend.torch_device)
        assert isinstance(model, ResidentNgpModel) == (backend.copies and not emulated)


def test_what_torch_has_to_do_is_told(small_scene, gpu):
    config, scene = configured(small_scene, steps=20)
    wanted = apply_settings(config, ["backend.resident=true", "poses.refine=true"])
    with pytest.raises(SettingsError, match="corrected through torch"):
        make_model(wanted, scene, gpu.torch_device)
    assert type(make_model(apply_settings(config, ["poses.refine=true"]), scene, gpu.torch_device)) is NgpModel


def test_only_rays_cross_in_a_step(small_scene, gpu):
    if not gpu.copies:
        pytest.skip(f"{gpu.arch} reads torch's memory")
    config, scene = configured(small_scene, steps=60)
    trainer = Trainer(apply_settings(config, ["backend.resident=true"]), scene, gpu.torch_device)
    for _ in range(3):
        trainer.step()
    traffic = runtime.traffic
    before = traffic.uploaded + traffic.downloaded
    step = trainer.step()
    crossed = traffic.uploaded + traffic.downloaded - before
    assert crossed < 60 * step.n_rays + 4096


def test_traffic_is_what_crosses(gpu):
    if not gpu.copies:
        pytest.skip(f"{gpu.arch} reads torch's memory")
    traffic, before = runtime.traffic, replace(runtime.traffic)
    array = DeviceArray(torch.zeros(1000))
    assert traffic.uploaded - before.uploaded == 4000
    assert traffic.allocated - before.allocated == 4000
    array.to_torch()
    assert traffic.downloaded - before.downloaded == 4000
    del array
    assert traffic.allocated == before.allocated
