"""Geometric terms and the prior in training: what they do to a field, with every method, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_scene import views_of_ball
from torch.testing import assert_close

from taichi_nerf import reference
from taichi_nerf.cameras import EQUIRECTANGULAR, FISHEYE, OPENCV, PINHOLE
from taichi_nerf.priors.denoiser import Denoiser, DenoiserSettings
from taichi_nerf.priors.prior import Prior, PriorSettings, prior_bytes
from taichi_nerf.procedural import make_scene
from taichi_nerf.rays import Samples
from taichi_nerf.scenes import load_scene
from taichi_nerf.scenes.images import Images
from taichi_nerf.setting_values import SettingsError
from taichi_nerf.training import methods
from taichi_nerf.training.config import PoseSettings, RunSettings, SceneSettings
from taichi_nerf.training.few_view_config import GeometrySettings, PatchPriorSettings
from taichi_nerf.training.few_views import patches_of, with_few_views
from taichi_nerf.training.geometry_term import GeometryTerm
from taichi_nerf.training.prior_term import PriorTerm, metres_of, picture_at
from taichi_nerf.training.terms import Moment
from taichi_nerf.training.terms_of import terms_of
from taichi_nerf.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = {
    "ngp": ("batch.n_samples=4096", "field.n_levels=4", "occupancy.resolution=32", "field.precision=float32"),
    "proposal": ("sampler.kind=proposal", "batch.n_samples=4096", "field.n_levels=4", "field.precision=float32"),
    "nerf": ("nerf.n_samples=16", "nerf.n_samples_fine=16", "batch.n_rays=32", "field.n_layers=2", "field.n_hidden=16"),
    "mipnerf": ("mipnerf.n_samples=16", "batch.n_rays=32", "field.n_layers=2", "field.n_hidden=16"),
}


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    settings = PriorSettings(DenoiserSettings(8, (1, 2)), size=8, focal=30.0)
    file.write_bytes(prior_bytes(Prior(settings, Denoiser(settings.denoiser))))
    return file


def small(method="ngp", steps=20, **sections):
    """A configuration on the ball, and the ball."""
    scene, _ = views_of_ball(n_views=3, size=24)
    settings = SceneSettings("ball")
    run = RunSettings("ngp" if method == "proposal" else method, "small" if "nerf" in method else "default", steps=steps)
    config, _ = methods.choose(scene, settings, run, CPU)
    config = methods.changed(config, SMALL[method])
    return replace(config, **sections), scene


def moment_of(trainer):
    """What a term sees at the trainer's next step."""
    found = []
    term = lambda moment: found.append(moment) or torch.zeros(())  # noqa: E731
    trainer.terms = [term]
    trainer.compare(trainer.draw(64))
    return found[0]


def test_without_them_training_has_no_terms(cpu):
    config, scene = small()
    assert Trainer(config, scene, CPU).terms == []


@pytest.mark.parametrize("method", list(SMALL))
def test_every_method_trains_with_all_of_them(cpu, prior_file, method):
    """All weights get gradients that are numbers, and the terms change what is learnt."""
    config, scene = small(method, geometry=GeometrySettings(1e-3, 1e-3, distortion=1e-4, distortion_from=0.0, density_decay=1e-7,
                                                                opacity_from=0.0))  # fmt: skip
    config = replace(config, prior=PatchPriorSettings(str(prior_file), weight=1000.0))
    trainer, plain = Trainer(config, scene, CPU), Trainer(small(method)[0], scene, CPU)
    for _ in range(3):
        trainer.step()
        plain.step()
    pairs = list(zip(trainer.model.parameters(), plain.model.parameters(), strict=True))
    assert all(bool(ours.isfinite().all()) for ours, _ in pairs)
    assert any(bool((ours != theirs).any()) for ours, theirs in pairs)


@pytest.mark.parametrize("method", list(SMALL))
def test_looking_sees_what_pictures_show(cpu, method):
    """The rendering with gradients that terms get: colors, opacities and depths of a picture, up to its random samples."""
    config, scene = small(method, steps=120)
    trainer = Trainer(config, scene, CPU)
    for _ in range(120):
        trainer.step()
    model = trainer.model
    y, x = np.mgrid[:24, :24] + 0.5
    pixels = torch.from_numpy(np.stack([x.ravel(), y.ravel()], -1)).float()
    rays = model.rig.rays(pixels, torch.zeros(len(pixels), dtype=torch.int32))
    seen = model.look(rays, torch.zeros(len(pixels), 3), torch.Generator().manual_seed(0))
    picture = model.picture(rays, (24, 24))
    out = seen.rendered
    assert out.color.requires_grad
    assert (out.color[:, :3].view(24, 24, 3) - picture.color).abs().mean() < 0.05
    assert (out.opacity.view(24, 24) - picture.opacity).abs().mean() < 0.05
    full = picture.opacity > 0.5 * picture.opacity.max()
    depth = (out.depth / out.opacity.clamp_min(1e-6)).view(24, 24)
    assert (depth - picture.depth)[full].abs().median() < 0.1
    # Weights belong to samples, and samples to rays.
    sums = torch.zeros(len(pixels)).index_add(0, seen.samples.ray_indices, out.weights)
    assert_close(sums, out.opacity, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", list(SMALL))
def test_opacity_wanted_is_that_of_the_pictures(cpu, method):
    """The term alone teaches a field which rays end: those whose pixels are filled."""
    config, scene = small(method)
    trainer = Trainer(config, scene, CPU)
    moment = moment_of(trainer)
    term = GeometryTerm(GeometrySettings(opacity=1 / 1024, opacity_from=0.0, opacity_full=0.0), scene, [0, 1, 2], CPU)
    expected = (moment.shown.alpha - moment.seen.rendered.opacity).square().mean()
    assert_close(term(moment), expected)


@pytest.mark.parametrize("method", ["ngp", "proposal", "nerf", "mipnerf", "mipnerf360"])
def test_weights_that_decay_are_those_that_density_depends_on(cpu, method):
    """Whatever the networks' others are, opacities stay; none of these may change without changing them."""
    config, scene = small("ngp") if method == "mipnerf360" else small(method)
    if method == "mipnerf360":
        run = RunSettings(method, "small", steps=20)
        config, _ = methods.choose(scene, SceneSettings("ball"), run, CPU)
        config = methods.changed(config, ("field.n_layers=2", "field.n_hidden=16", "field.precision=float32",
                                          "density.precision=float32"))  # fmt: skip
    trainer = Trainer(config, scene, CPU)
    trainer.step()
    model = trainer.model.eval()
    rays = model.rig.rays(24 * torch.rand(64, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(64, dtype=torch.int32))

    def seen():
        return model.picture(rays, (64, 1))

    decaying = {id(weight) for weight in model.density_weights()}
    before = seen()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if id(weight) not in decaying and not name.startswith(("field.table", "proposals.")):  # grids are no networks
                weight.normal_(generator=torch.Generator().manual_seed(1))
        assert torch.equal(seen().opacity, before.opacity)
        assert not torch.equal(seen().color, before.color)
        for weight in model.density_weights():
            kept = weight.clone()
            weight += 0.1
            assert not torch.equal(seen().opacity, before.opacity)
            weight.copy_(kept)


def test_frusta_take_away_what_one_camera_alone_sees(cpu):
    """Trained on three views with and without the term: less weight in places that fewer than two cameras see."""

    def lonely(weight):
        config, scene = small(steps=60, geometry=GeometrySettings(frustum=weight, frustum_later=1.0))
        narrow = replace(scene, cameras=replace(scene.cameras, intrinsics=scene.cameras.intrinsics * [1.6, 1.6, 1, 1]))
        trainer = Trainer(config, narrow, CPU)
        for _ in range(60):
            trainer.step()
        moment = moment_of(trainer)
        term = GeometryTerm(GeometrySettings(frustum=1.0), narrow, [0, 1, 2], CPU)
        counts = term.counts(moment, moment.shown.rays, moment.seen)
        weights = moment.seen.rendered.weights.detach()
        return float(weights[counts < 2].sum() / weights.sum())

    without, with_it = lonely(0.0), lonely(3e-3)
    assert without > 0.02
    assert with_it < 0.5 * without


@pytest.mark.parametrize("model", [PINHOLE, OPENCV, FISHEYE])
def test_what_a_lens_shows_is_within_its_frustum(cpu, model):
    """A camera sees every place on a ray of its picture, and none beside it."""
    config, scene = small(geometry=GeometrySettings(frustum=1.0))
    lens = {PINHOLE: [0.0] * 8, OPENCV: [-0.12, 0.01, 0, 0, 0, 0, 0.002, -0.001], FISHEYE: [0.02, -0.01, 0, 0, 0, 0, 0, 0]}[model]
    wide = scene.cameras.intrinsics * [0.5, 0.5, 1, 1]
    cameras = replace(scene.cameras, intrinsics=wide, models=np.full(3, model, np.int32), distortion=np.tile(lens, (3, 1)))
    scene = replace(scene, cameras=cameras)
    moment = moment_of(Trainer(config, scene, CPU))
    term = GeometryTerm(config.geometry, scene, [0], CPU)
    n, rig = 500, moment.model.rig
    rays = rig.rays(24 * torch.rand(n, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(n, dtype=torch.int32))
    t = torch.linspace(2, 5, n)  # beyond the nearest depth, in corners too
    spans = torch.stack([torch.arange(n), torch.ones(n)], -1).int()
    seen = moment.seen._replace(samples=Samples(t, t, torch.arange(n, dtype=torch.int32), spans))
    assert bool((term.counts(moment, rays, seen) == 1).all())
    too_near = seen._replace(samples=seen.samples._replace(t_starts=0.3 * t, t_ends=0.3 * t))
    assert bool((term.counts(moment, rays, too_near)[t < 3] == 0).all())  # the nearest depth is one
    pose = rig.poses()[0]
    beside = rays._replace(directions=(0.5 * pose[:, 2] + pose[:, 0]).expand(n, 3).contiguous())
    assert bool((term.counts(moment, beside, seen) == 0).all())


def test_cameras_without_a_frustum_get_no_term_and_refuse_one_that_is_asked_for(cpu):
    config, scene = small()
    around = replace(scene.cameras, models=np.full(3, EQUIRECTANGULAR, np.int32))
    scene = replace(scene, cameras=around, bounds=replace(scene.bounds, unbounded=True))
    found, notes = with_few_views(config, scene, True, None)
    assert (found.geometry.frustum, found.geometry.opacity) == (0.0, 1e-3)
    assert "no frusta" in notes[0]
    with pytest.raises(SettingsError, match=r"look all around.*--set geometry\.frustum=0"):
        GeometryTerm(GeometrySettings(frustum=1.0), scene, [0, 1, 2], CPU)


def test_distortion_gathers_weights(cpu):
    def spread(weight):
        settings = GeometrySettings(distortion=weight, distortion_from=0.0, distortion_full=0.0)
        config, scene = small(steps=60, geometry=settings)
        trainer = Trainer(config, scene, CPU)
        for _ in range(60):
            trainer.step()
        moment = moment_of(trainer)
        unit = GeometryTerm(replace(settings, distortion=1 / 1024), scene, [0, 1, 2], CPU)
        return float(unit.along(moment, moment.shown.rays, moment.seen).detach())

    assert spread(1e-3) < 0.7 * spread(0.0)


def test_distortion_is_in_shares_of_the_distance_of_what_is_seen(cpu):
    """Not of Σ w t, which is short where light passes."""
    config, scene = small()
    moment = moment_of(Trainer(config, scene, CPU))
    settings = GeometrySettings(distortion=1 / 1024, distortion_from=0.0, distortion_full=0.0)
    out, samples = moment.seen.rendered, moment.seen.samples
    spread = reference.distortion.distortion_loss(out.weights, samples.t_starts, samples.t_ends, samples.spans)
    seen = out.opacity > 0.05
    assert bool(seen.any())
    assert bool((out.opacity[seen] < 0.9).any())
    expected = torch.where(seen, spread * out.opacity / out.depth.clamp_min(1e-6), 0.0).mean().item()
    assert GeometryTerm(settings, scene, [0, 1, 2], CPU)(moment).item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("term", ["opacity", "distortion"])
def test_terms_grow_over_the_middle_of_the_training(cpu, term):
    """By the same moment of the same field: at 55 % half of what is there from 80 % on, and nothing before 30 %."""
    config, scene = small()
    trainer = Trainer(config, scene, CPU)
    moment, of_all = moment_of(trainer), GeometryTerm(GeometrySettings(**{term: 1.0}), scene, [0, 1, 2], CPU)
    found = [float(of_all(moment._replace(progress=p)).detach()) for p in (0.0, 0.3, 0.55, 0.8, 1.0)]
    assert found[-1] > 0
    assert [value / found[-1] for value in found] == pytest.approx([0, 0, 0.5, 1, 1])
    published = GeometryTerm(GeometrySettings(opacity=1.0, opacity_from=0.0, opacity_full=0.0), scene, [0, 1, 2], CPU)
    if term == "opacity":
        assert float(published(moment._replace(progress=0.0)).detach()) == pytest.approx(found[-1])


def test_frusta_count_less_after_the_first_of_the_training(cpu):
    """By the same moment of the same field: as much as the weight says at first, and the later share of it from then on."""
    config, scene = small()
    narrow = replace(scene, cameras=replace(scene.cameras, intrinsics=scene.cameras.intrinsics * [1.6, 1.6, 1, 1]))
    moment = moment_of(Trainer(config, narrow, CPU))
    term = GeometryTerm(GeometrySettings(frustum=0.5, frustum_later=0.1, frustum_until=0.2), narrow, [0, 1, 2], CPU)
    few = (2 - term.counts(moment, moment.shown.rays, moment.seen)).clamp_min(0)
    whole = 0.5 * 1024 * float((few * moment.seen.rendered.weights).sum().detach()) / 64
    assert whole > 1
    found = [float(term(moment._replace(progress=p)).detach()) for p in (0.0, 0.19, 0.2, 1.0)]
    assert found == pytest.approx([whole, whole, 0.1 * whole, 0.1 * whole], rel=1e-4)


@pytest.mark.parametrize("method", ["ngp", "nerf"])
def test_weights_that_decay_cost_their_squares(cpu, method):
    config, scene = small(method)
    trainer = Trainer(config, scene, CPU)
    moment, term = moment_of(trainer), GeometryTerm(GeometrySettings(density_decay=0.5), scene, [0, 1, 2], CPU)
    trainer.optimiser.zero_grad()
    cost = term(moment)
    cost.backward()
    weights = trainer.model.density_weights()
    assert cost.item() == pytest.approx(0.5 * sum(float(weight.detach().square().sum()) for weight in weights), rel=1e-5)
    for weight in weights:
        assert_close(weight.grad, weight.detach())


def a_prior_term(trainer, scene, prior_file, **settings):
    from taichi_nerf.priors.prior import load_prior

    return PriorTerm(PatchPriorSettings(str(prior_file), **settings), load_prior(prior_file), scene, [0, 1, 2], 1.0, True, CPU)


def gradients(trainer, moment, term):
    trainer.optimiser.zero_grad()
    generator = torch.Generator().manual_seed(5)
    for _ in range(10):  # some of which see the ball
        term(moment._replace(generator=generator)).backward()
    field = trainer.model.field
    return [float(weight.grad.abs().sum()) for weight in (field.table, *field.density_mlp.parameters())], [
        float(weight.grad.abs().sum()) for weight in field.color_mlp.parameters()
    ]


@pytest.mark.parametrize(("image_share", "colors_learn"), [(0.0, True), (1.0, False)])
def test_patches_teach_depth_and_those_of_images_no_colors(cpu, prior_file, image_share, colors_learn):
    config, scene = small(steps=60)
    trainer = Trainer(config, scene, CPU)
    for _ in range(60):
        trainer.step()
    moment = moment_of(trainer)
    density, color = gradients(trainer, moment, a_prior_term(trainer, scene, prior_file, image_share=image_share))
    assert min(density) > 0
    assert (min(color) > 0) == colors_learn
    assert colors_learn or max(color) == 0


def test_a_prior_is_shown_inverse_depths_as_it_learned_them(cpu):
    """Of two priors that differ in what they call near, one sees 2.5 times the other's: all is farther than half a metre."""
    config, scene = small(steps=60)
    trainer = Trainer(config, scene, CPU)
    for _ in range(60):
        trainer.step()
    moment, seen = moment_of(trainer), []
    for nearest in (0.2, 0.5):
        settings = PriorSettings(DenoiserSettings(8, (1, 2)), size=8, focal=30.0, nearest=nearest)
        prior = Prior(settings, Denoiser(settings.denoiser))
        prior.score = lambda x, t: seen.append((x[0, 3] + 1) / 2) or torch.zeros_like(x)
        term = PriorTerm(PatchPriorSettings(image_share=1.0), prior, scene, [0, 1, 2], 1.0, True, CPU)
        for _ in range(5):
            term(moment._replace(generator=torch.Generator().manual_seed(len(seen) % 5)))
    near, far = torch.stack(seen[:5]), torch.stack(seen[5:])
    assert near.max() > 0.05
    assert_close(far, 2.5 * near, atol=2e-3, rtol=1e-5)  # where next to nothing is, depth is anything


def a_flat_prior(score, nearest=0.2):
    """Whose score is the same everywhere; `asked` is what it was asked about, and at what times."""
    settings = PriorSettings(DenoiserSettings(8, (1, 2)), size=8, focal=30.0, nearest=nearest)
    prior = Prior(settings, Denoiser(settings.denoiser))
    prior.asked = []
    prior.score = lambda x, t: prior.asked.append((x[0], t)) or torch.full_like(x, score)
    prior.noise_in = lambda x, t: prior.asked.append((x, t)) or torch.full_like(x, score)
    return prior


def after_some_steps(**sections):
    config, scene = small(steps=25, **sections)
    trainer = Trainer(config, scene, CPU)
    for _ in range(25):
        trainer.step()
    return trainer, moment_of(trainer)


def test_a_patch_pulls_as_strongly_as_is_set_and_the_more_the_seldomer_there_is_one(cpu):
    trainer, moment = after_some_steps()

    def slopes(**settings):
        trainer.optimiser.zero_grad()
        patches = PatchPriorSettings("some", image_share=0.0, **settings)
        term = PriorTerm(patches, a_flat_prior(1.0), trainer.scene, [0, 1, 2], 1.0, True, CPU)
        generator = torch.Generator().manual_seed(4)
        for _ in range(10):  # some of which see the ball
            term(moment._replace(n_steps=6, generator=generator)).backward()
        field = trainer.model.field
        return field.table.grad.clone(), torch.cat([weight.grad.flatten() for weight in field.color_mlp.parameters()])

    usual, colors = slopes(weight=0.2, every=1)
    assert usual.abs().max() > 0
    assert colors.abs().max() > 0
    alike = {"atol": 1e-4 * float(usual.abs().max()), "rtol": 1e-3}  # they are tiny
    assert_close(slopes(weight=0.6, every=1)[0], 3 * usual, **alike)
    assert_close(slopes(weight=0.2, every=3)[0], 3 * usual, **alike)
    of_depth, no_colors = slopes(weight=0.2, color=0.0)
    assert not no_colors.any()
    assert of_depth.any()
    assert_close(slopes(weight=0.2, color=0.0, depth=8e-6)[0], 4 * of_depth, **alike)
    assert_close(slopes(weight=0.2, depth=0.0, color=6e-6)[1], 2 * colors, atol=1e-4 * float(colors.abs().max()), rtol=1e-3)


def test_a_prior_is_asked_at_the_times_that_are_set_and_with_noise_where_that_is_wished(cpu):
    trainer, moment = after_some_steps()

    def asked(noise, **settings):
        prior = a_flat_prior(0.0)
        term = PriorTerm(PatchPriorSettings("some", noise=noise, **settings), prior, trainer.scene, [0, 1, 2], 1.0, True, CPU)
        for progress in (0.0, 0.25, 0.5, 1.0):
            term(moment._replace(progress=progress))
        return prior, prior.asked

    prior, found = asked(False, tau=0.4, tau_last=0.1, tau_until=0.5)
    assert [t for _, t in found] == [prior.schedule.time_at(tau) for tau in (0.4, 0.25, 0.1, 0.1)]
    assert [x.shape for x, _ in found] == [(4, 8, 8)] * 4
    prior, found = asked(True, tau=0.4, tau_last=0.4)
    assert [x.shape for x, _ in found] == [(2, 4, 8, 8)] * 4  # with noise, and with its opposite
    assert all((x[0] - x[1]).std() > 0.5 for x, _ in found)


def test_patches_are_seen_from_cameras_as_corrected_moved_by_no_more_than_20_centimetres(cpu):
    trainer, moment = after_some_steps(poses=PoseSettings(refine=True, learning_rate=0.0))
    model, seen = trainer.model, []
    with torch.no_grad():
        model.rig.shifts += torch.tensor([0.3, -0.2, 0.1])
    right = model.look
    model.look = lambda rays, *others: seen.append(rays) or right(rays, *others)
    places = model.rig.poses()[:, :, 3].detach()
    for metres in (1.0, 4.0):
        term = PriorTerm(
            PatchPriorSettings("some", image_share=0.0), a_flat_prior(0.0), trainer.scene, [0, 1, 2], metres, True, CPU
        )
        seen.clear()
        for _ in range(10):
            term(moment)
        off = torch.stack([(rays.origins[0] - places).abs().amax(-1).min() for rays in seen])
        assert (off <= 0.2 / metres + 1e-5).all()
        assert off.max() > 0.1 / metres


@pytest.mark.parametrize("is_object", [True, False])
def test_a_prior_is_shown_the_inverse_of_depths_along_the_axis_in_metres(cpu, is_object):
    """Of what is seen on a ray, not of the light that passes; around an object, what shows nothing is infinitely far."""
    trainer, moment = after_some_steps()
    scene = replace(trainer.scene, bounds=replace(trainer.scene.bounds, unbounded=not is_object))
    model, looks, prior = trainer.model, [], a_flat_prior(0.0)
    right = model.look
    model.look = lambda rays, *others: looks.append((rays, right(rays, *others))) or looks[-1][1]
    term = PriorTerm(PatchPriorSettings("some", image_share=1.0), prior, scene, [0, 1, 2], 3.0, True, CPU)
    for _ in range(5):
        term(moment)
    for (rays, seen), (x, _) in zip(looks, prior.asked, strict=True):
        poses, out = model.rig.poses(), seen.rendered
        forward = poses[(poses[:, :, 3] - rays.origins[0]).norm(dim=-1).argmin(), :, 2]
        depth = 3.0 * out.depth / out.opacity.clamp_min(0.01) * (rays.directions @ forward)
        inverse = 0.2 / depth.clamp_min(0.2) * (out.opacity if is_object else 1)
        assert_close((x[3] + 1) / 2, inverse.detach().view(8, 8), atol=1e-5, rtol=1e-4)


def test_geometric_terms_of_patches_are_there_where_they_are_wished_and_count_for_the_steps_without_a_patch(cpu, prior_file):
    geometry = GeometrySettings(frustum=1.0, frustum_later=1.0)
    config, scene = small(steps=25, geometry=geometry, prior=PatchPriorSettings(str(prior_file)))
    assert terms_of(config, scene, [0, 1, 2], CPU)[1].geometry is None
    config = replace(config, geometry=replace(geometry, on_patches=True))
    trainer = Trainer(config, scene, CPU)
    of_rays, of_patches = trainer.terms
    assert of_patches.geometry is of_rays
    for _ in range(25):
        trainer.step()
    moment, found = moment_of(trainer), {}
    for every in (1, 3):
        of_patches.settings = replace(config.prior, every=every)
        generator = torch.Generator().manual_seed(5)
        found[every] = sum(of_patches(moment._replace(n_steps=6, generator=generator)).item() for _ in range(5))
    assert found[1] > 0.01
    assert found[3] == pytest.approx(3 * found[1], rel=1e-4)


def test_the_value_of_the_priors_term_is_0_and_patches_come_every_so_many_steps(cpu, prior_file):
    config, scene = small(steps=30)
    trainer = Trainer(config, scene, CPU)
    for _ in range(30):
        trainer.step()
    moment = moment_of(trainer)
    term = a_prior_term(trainer, scene, prior_file, every=3)
    for n_steps in range(4):
        loss = term(moment._replace(n_steps=n_steps))
        assert loss.item() == 0
        assert loss.requires_grad == (n_steps % 3 == 0)


def test_patches_of_the_published_code_mind_only_what_no_camera_sees(cpu, prior_file):
    """What a window of a training image shows its own camera sees: there nothing is lonely, but where one camera is too few."""
    config, scene = small(steps=60)
    narrow = replace(scene, cameras=replace(scene.cameras, intrinsics=scene.cameras.intrinsics * [1.6, 1.6, 1, 1]))
    trainer = Trainer(config, narrow, CPU)
    for _ in range(60):
        trainer.step()
    moment = moment_of(trainer)
    geometry = GeometryTerm(GeometrySettings(frustum=1.0, frustum_later=1.0, on_patches=True), narrow, [0, 1, 2], CPU)
    found = {}
    for compat in ("paper", "repo"):
        term = a_prior_term(trainer, narrow, prior_file, image_share=1.0, compat=compat)
        term.geometry = geometry
        generator = torch.Generator().manual_seed(3)
        found[compat] = sum(term(moment._replace(generator=generator)).item() for _ in range(10))
    assert found["paper"] > 1
    assert found["repo"] < 1e-3 * found["paper"]


def test_resuming_with_terms_changes_nothing(cpu, prior_file):
    geometry = GeometrySettings(1e-3, 1e-3, distortion=1e-4, distortion_from=0.0)
    config, scene = small(steps=8, geometry=geometry, prior=PatchPriorSettings(str(prior_file), every=2))
    whole, second = Trainer(config, scene, CPU), Trainer(config, scene, CPU)
    for _ in range(4):
        whole.step()
    second.load_state_dict(whole.state_dict(copied=True))
    for _ in range(4):
        assert whole.step().loss == pytest.approx(second.step().loss, rel=1e-5)


def test_pictures_are_looked_up_at_pixel_centres_and_averaged():
    picture = torch.arange(12.0).view(3, 4, 1).repeat(1, 1, 2)
    at = torch.tensor([[0.5, 0.5], [2.5, 1.5], [2.0, 1.5]])
    assert_close(picture_at(picture, at, 1.0)[:, 0], torch.tensor([0.0, 6.0, 5.5]))
    assert_close(picture_at(picture, torch.tensor([[2.0, 1.0]]), 2.0)[:, 1], torch.tensor([(1 + 2 + 5 + 6) / 4]))


def test_windows_of_pictures_with_alpha_are_averaged_over_the_background(cpu):
    """Of a red thing on white every pixel is as red as can be, also where the color that alpha leaves out is black."""
    config, scene = small()
    red = [np.concatenate([255 * (p[..., 3:] > 0), 0 * p[..., :2], p[..., 3:]], -1).astype(np.uint8) for p in scene.images]
    config = replace(config, batch=replace(config.batch, background="white"))
    scene, seen = replace(scene, images=Images([None] * len(red), arrays=red)), []
    moment = moment_of(Trainer(config, scene, CPU))
    settings = PriorSettings(DenoiserSettings(8, (1, 2)), size=8, focal=15.0)
    prior = Prior(settings, Denoiser(settings.denoiser))
    prior.score = lambda x, t: seen.append((x[0, :3] + 1) / 2) or torch.zeros_like(x)
    term = PriorTerm(PatchPriorSettings(image_share=1.0), prior, scene, [0, 1, 2], 1.0, True, CPU)
    for _ in range(5):
        term(moment)
    reds, others = torch.stack(seen)[:, 0], torch.stack(seen)[:, 1:]
    assert bool(((others > 0.1) & (others < 0.9)).any())  # outlines
    assert_close(reds, torch.ones_like(reds))


def test_metres_of_a_scene(cpu):
    scene, _ = views_of_ball(n_views=4)
    assert metres_of(scene, 3.0)[0] == 3.0
    assert metres_of(replace(scene, kind="rgbd"), None) == (1.0, "rgbd is in metres")
    distance = float(np.linalg.norm(scene.cameras.centers[0]))
    found, why = metres_of(scene, None)
    assert found == pytest.approx(2.0 / distance)
    assert "a guess" in why


def test_a_prior_brings_geometric_terms_along(cpu, prior_file):
    config, scene = small()
    with_prior, notes = with_few_views(config, scene, None, str(prior_file))
    assert with_prior.geometry.is_on
    assert with_prior.prior.file == str(prior_file.resolve())
    assert any("prior" in note for note in notes)
    assert with_prior.geometry.on_patches
    small_ones = with_prior.prior
    assert (small_ones.noise, small_ones.every) == (True, 2)
    assert (small_ones.depth, small_ones.color, small_ones.image_share) == (4e-5, 1.2e-5, 0.4)
    assert (small_ones.tau, small_ones.tau_last, small_ones.tau_until) == (0.4, 0.2, 1.0)
    assert patches_of("published.pt", 48) == PatchPriorSettings("published.pt")
    alone = with_few_views(config, scene, False, str(prior_file))[0].geometry
    assert (alone.is_on, alone.on_patches) == (False, False)
    assert with_few_views(config, scene, None, None) == (config, [])
    with pytest.raises(ValueError, match="no such prior"):
        with_few_views(config, scene, None, "nowhere.safetensors")


def test_what_makes_no_sense_is_refused(cpu, prior_file):
    with pytest.raises(ValueError, match="every"):
        PatchPriorSettings(every=0)
    for name in ("image_share", "tau", "tau_last"):
        with pytest.raises(ValueError, match=name):
            PatchPriorSettings(**{name: 2.0})
    config, scene = small("nerf", geometry=GeometrySettings(opacity=1.0, opacity_from=0.0, opacity_full=0.0))
    config = replace(config, nerf=replace(config.nerf, ndc=True, within_box=False, disparity=False))
    with pytest.raises(SettingsError, match="do not keep"):
        terms_of(config, scene, [0, 1, 2], CPU)


def test_a_moment_names_all_that_terms_need(cpu):
    config, scene = small()
    moment = moment_of(Trainer(config, scene, CPU))
    assert isinstance(moment, Moment)
    assert (moment.n_steps, moment.progress) == (0, 0.0)
    assert len(moment.shown.alpha) == 64


@pytest.mark.parametrize(("family", "is_object"), [("rooms", False), ("objects", True), ("unbounded", False)])
def test_rooms_have_the_frustum_term_and_objects_on_nothing_have_none(cpu, tmp_path, family, is_object):
    """A room has bounds, as an object has; but it is all around the cameras, and light ends in it everywhere."""
    scene = load_scene(make_scene(family, tmp_path / "scene", seed=3, n_views=4, n_val=0, n_test=1, size=16))
    assert scene.is_object == is_object
    config, _ = methods.choose(scene, SceneSettings("scene"), RunSettings(steps=2), CPU)
    geometry = with_few_views(config, scene, True, None)[0].geometry
    assert (geometry.frustum, geometry.distortion) == ((0.0, 1e-4) if is_object else (1e-5, 1.5e-5))
