"""Training and evaluating a pixelNeRF: on balls in closed form, and on DTU's form."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_objects import ball_views, write_object, write_set

from taichi_nerf.setting_values import SettingsError
from taichi_nerf.settings import apply_settings
from taichi_nerf.training import pixelnerf_trainer
from taichi_nerf.training.checkpoint import load_checkpoint
from taichi_nerf.training.distributed import World
from taichi_nerf.training.pixelnerf_config import (
    ObjectBatchSettings,
    ObjectSettings,
    PixelNerfRun,
    SamplingSettings,
    published,
    small,
)
from taichi_nerf.training.pixelnerf_evaluate import evaluate, read_view_list, rounded, targets_of
from taichi_nerf.training.pixelnerf_model import Prior, load_prior, save_model
from taichi_nerf.training.pixelnerf_objects import ObjectSet, entries_of, object_of, read_object
from taichi_nerf.training.pixelnerf_rays import render_rays
from taichi_nerf.training.pixelnerf_render import refine
from taichi_nerf.training.pixelnerf_trainer import (
    PixelNerfTrainer,
    draw_objects,
    draw_pixels,
    jittered,
    make_field,
    settle_statistics,
)
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.training.train_pixelnerf import train

from real_data import data_folder

CPU = torch.device("cpu")
TINY = ("encoder.kind=resnet10", "encoder.width=8", "encoder.first_pool=false", "field.n_hidden=32", "batch.n_objects=4",
        "batch.n_rays=32",
        "sampling.n_coarse=16", "optimiser.learning_rate=3e-3", "field.precision=float32")  # fmt: skip


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def configured(path, *settings, steps=60, preset=small):
    return apply_settings(preset(ObjectSettings(str(path)), PixelNerfRun(steps=steps)), [*TINY, *settings])


def run(folder, config, resume=False, stop_after=None):
    asked = iter(range(10**9))
    opened = RunFolder.open(folder).locked() if resume else RunFolder.create(folder)
    with opened as place:
        stop = lambda: stop_after is not None and next(asked) >= stop_after  # noqa: E731
        return train(config, place, CPU, resume=resume, stop=stop)


def ball(seed, **options):
    cameras, pictures = ball_views(seed, **options)
    pictures = torch.from_numpy(pictures)
    return object_of(str(seed), "balls", pictures, (pictures != 255).any(-1), cameras, 1.25, 2.75)


def test_a_short_training_shows_balls_that_it_never_saw(cpu, balls, tmp_path):
    config = configured(balls, steps=100)
    outcome = run(tmp_path / "run", config)
    assert outcome.n_steps == 100
    prior = load_prior(tmp_path / "run", CPU)
    found = evaluate(prior, ObjectSet(config.objects, "test"), [0], CPU)
    white = np.mean([-10 * np.log10(np.mean((ball_views(seed)[1][1:] / 255 - 1) ** 2)) for seed in (100, 101)])
    assert found["psnr"] > white + 1.5  # 1.9 after 100 steps
    assert [one["name"] for one in found["objects"]] == ["100", "101"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 100
    assert (tmp_path / "run/plots/training.png").is_file()


def test_a_training_that_was_interrupted_goes_on_as_if_nothing_had_happened(cpu, balls, tmp_path):
    config = configured(balls, "sampling.n_coarse=8", steps=12)
    run(tmp_path / "whole", config)
    assert run(tmp_path / "parts", config, stop_after=5).stopped
    run(tmp_path / "parts", config, resume=True)
    whole, parts = (load_prior(tmp_path / name, CPU).field.state_dict() for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    mean = next(name for name in whole if name.endswith("running_mean"))
    learned = load_checkpoint(tmp_path / "whole/checkpoint.safetensors")[0]["model"]
    assert not torch.equal(learned[mean], whole[mean])  # which is settled over 64 batches, all alike
    field = make_field(config)
    field.load_state_dict(learned)
    settle_statistics(field, ObjectSet(config.objects, "train"), config.batch, 64, CPU)
    torch.testing.assert_close(field.state_dict()[mean], whole[mean])


def test_the_gradient_of_a_step_is_that_of_the_loss_written_in_one_piece(cpu, balls):
    """Objects go backward one by one, and the encoder once at the end: the sum is the same."""
    config = configured(balls, "sampling.hull=false", "field.density=softplus", "batch.n_objects=2")
    trainer = PixelNerfTrainer(config, ObjectSet(config.objects, "train"), CPU)
    state = trainer.generator.get_state()
    trainer._gradients()
    parts = {name: p.grad.clone() for name, p in trainer.field.named_parameters() if p.grad is not None}
    trainer.generator.set_state(state)
    trainer.optimiser.zero_grad()
    batch, generator = config.batch, trainer.generator
    items = [trainer.objects[int(i)] for i in torch.randint(6, (2,), generator=generator)]
    items = [item._replace(pictures=item.pictures[..., torch.randperm(3, generator=generator)]) for item in items]
    n_views = batch.views[int(torch.randint(len(batch.views), (1,), generator=generator))]
    views = [torch.randperm(item.n_views, generator=generator)[:n_views] for item in items]
    encoded = trainer.field.encode_all([item.sources(index, CPU) for item, index in zip(items, views, strict=True)])
    sum(trainer._compare(item, one)[0] / 2 for item, one in zip(items, encoded, strict=True)).backward()
    for name, parameter in trainer.field.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parts[name], parameter.grad, atol=1e-6, rtol=1e-4)
    assert len(parts) > 50


def a_trainer(path, *settings, steps=60, preset=small, world=World()):
    config = configured(path, *settings, steps=steps, preset=preset)
    return PixelNerfTrainer(config, ObjectSet(config.objects, "train"), CPU, world)


def test_every_weight_learns(cpu, balls):
    """Of encoder, coarse and fine network. Of a ResNet the last stage is not looked at."""
    made = a_trainer(
        balls, "sampling.n_importance=2", "sampling.n_depth=2", "batch.n_objects=1", "batch.n_rays=8", preset=published
    )
    learned = {name: weight for name, weight in made.field.named_parameters() if "layer4" not in name}
    before = {name: weight.detach().clone() for name, weight in learned.items()}
    for _ in range(3):
        made.step()
    assert {name.split(".")[0] for name in before} == {"encoder", "mlp_coarse", "mlp_fine"}
    assert not [name for name, weight in learned.items() if torch.equal(weight, before[name])]


def test_the_rate_warms_up_and_falls_and_rays_leave_the_boxes_when_their_share_is_over(cpu, balls, monkeypatch):
    schedule = ("optimiser.final_share=0.1", "optimiser.warm_up=0.5")
    made, found = a_trainer(balls, *schedule, "batch.box_share=0.7", "batch.n_objects=1", steps=4), []
    right = pixelnerf_trainer.draw_pixels
    monkeypatch.setattr(pixelnerf_trainer, "draw_pixels", lambda *given: found.append(given[-1]) or right(*given))
    rates = []
    for _ in range(4):
        made.step()
        rates.append(made.optimiser.param_groups[0]["lr"] / made.config.optimiser.learning_rate)
    assert rates == pytest.approx([0, 0.5, 1, 0.55])  # at 75 %, half way down
    assert found == [False, False, False, True]


def test_objects_come_in_other_colors_and_lights_and_with_as_many_sources_as_are_set(balls):
    objects, generator = ObjectSet(ObjectSettings(str(balls)), "train"), torch.Generator().manual_seed(0)
    plain = [objects[i].pictures for i in range(len(objects))]

    def is_one_of(pictures, others):
        return any(torch.equal(pictures, other) for other in others)

    def drawn(**batch):
        return draw_objects(objects, ObjectBatchSettings(n_objects=12, **batch), generator)

    assert all(is_one_of(item.pictures, plain) for item in drawn()[0])
    turned = [pictures[..., [1, 2, 0]] for pictures in plain]
    shuffled = [item.pictures for item in drawn(color_shuffle=True)[0]]
    assert any(is_one_of(pictures, turned) for pictures in shuffled)
    assert not any(is_one_of(item.pictures, plain) for item in drawn(color_jitter=0.2)[0])
    counts = {len(views) for _ in range(20) for views in drawn(views=(1, 3))[1]}
    assert counts == {1, 3}


class Stopping(World):
    """One of two processes, whose mean gradients are zero."""

    def sum_over_ranks(self, tensor):
        return 2 * tensor

    def average_gradients(self, parameters):
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()


def test_processes_that_train_together_step_by_the_mean_of_their_gradients(cpu, balls):
    made = a_trainer(balls, world=Stopping(0, 2))
    before = {name: weight.detach().clone() for name, weight in made.field.named_parameters()}
    made.step()
    assert all(torch.equal(weight, before[name]) for name, weight in made.field.named_parameters())


def test_statistics_are_settled_over_batches_of_several_objects_as_in_training(cpu, tmp_path):
    """Against those of all pictures at once: pictures of one object by itself vary less."""
    colors = torch.randint(0, 256, (20, 1, 1, 1, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    items = [ball(0)._replace(pictures=color.expand(6, 24, 24, 3)) for color in colors]
    config = configured(tmp_path, "batch.n_objects=16", "batch.views=1", "batch.color_shuffle=false")
    field = make_field(config)
    settle_statistics(field, items, config.batch, 64, CPU)
    convolved = field.encoder.model.conv1((colors[:, :, 0].float() / 255).movedim(-1, 1).expand(20, 3, 24, 24) * 2 - 1)
    norm = field.encoder.model.bn1
    torch.testing.assert_close(norm.running_mean, convolved.mean((0, 2, 3)), atol=0.1, rtol=0.1)
    torch.testing.assert_close(norm.running_var, convolved.var((0, 2, 3)), atol=0.02, rtol=0.2)


def test_a_model_file_holds_the_model_and_its_settings(cpu, tmp_path):
    config = configured(tmp_path)
    prior = Prior(make_field(config).eval(), config)
    save_model(tmp_path / "model.safetensors", prior, {"steps": "3"})
    again = load_prior(tmp_path / "model.safetensors", CPU)
    assert again.config == config
    assert all(
        torch.equal(a, b) for a, b in zip(prior.field.state_dict().values(), again.field.state_dict().values(), strict=True)
    )
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(RunError, match=r"model\.safetensors"):
        load_prior(tmp_path / "model.safetensors", CPU)
    with pytest.raises(RunError, match="no such model"):
        load_prior(tmp_path / "nothing", CPU)


def test_rays_that_no_source_lets_be_filled_show_the_background(cpu):
    """And a model asked only within the hull gives what it gives when asked everywhere with density zero outside."""
    item = ball(0)
    config = configured("nowhere")
    field = make_field(config).eval()
    encoded = field.encode(item.sources([0, 1], CPU))
    corner = item.rays(torch.tensor([[1.5, 1.5]]), torch.zeros(1), CPU)
    (look,) = render_rays(field, encoded, corner, (1.25, 2.75), config.sampling, 1.0)
    assert look.color.tolist() == [[1, 1, 1]]
    assert look.opacity.item() == 0
    pixels = torch.tensor([[12.0, 12], [8, 12], [2, 2]])
    rays = item.rays(pixels, torch.full((3,), 2), CPU)
    (inside,) = render_rays(field, encoded, rays, (1.25, 2.75), config.sampling, 1.0)
    everywhere = replace(config.sampling, hull=False)
    original = field.forward

    def carved(encoded, positions, directions, fine=False):
        density, color = original(encoded, positions, directions, fine)
        return density * field.may_be_filled(encoded.sources, positions), color

    field.forward = carved
    (whole,) = render_rays(field, encoded, rays, (1.25, 2.75), everywhere, 1.0)
    torch.testing.assert_close(inside.color, whole.color, atol=1e-5, rtol=1e-5)


def test_fine_samples_are_as_many_as_published_and_lie_where_the_coarse_depth_is(cpu, generator):
    item = ball(0)
    settings = apply_settings(published(ObjectSettings(""), PixelNerfRun(steps=1)), ["encoder.width=4", "field.n_hidden=16"])
    field = make_field(settings).eval()
    encoded = field.encode(item.sources([0], CPU))
    seen = []
    original = field.forward

    def noted(encoded, positions, directions, fine=False):
        seen.append(positions)
        return original(encoded, positions, directions, fine)

    field.forward = noted
    rays = item.rays(torch.tensor([[12.0, 12], [11, 12]]), torch.zeros(2), CPU)
    coarse, fine = render_rays(field, encoded, rays, (1.25, 2.75), settings.sampling, 1.0, generator)
    assert [len(positions) for positions in seen] == [2 * 64, 2 * 96]
    assert coarse.weights.shape == (2, 64)
    assert fine.weights.shape == (2, 96)
    t = (seen[1].view(2, 96, 3) - rays.origins[:, None]).norm(dim=-1)
    assert bool((t.diff() >= -1e-5).all())
    near = (t - coarse.depth.detach()[:, None].clamp(1.25, 2.75)).abs() < 0.05
    assert bool((near.sum(-1) >= 16).all())


def test_the_coarse_depth_gets_a_gradient_from_the_fine_colors_only_where_that_is_wished(cpu):
    """Which the authors' code does, whose coarse depth nothing detaches."""
    item = ball(0)
    found = []
    authors = published(ObjectSettings(""), PixelNerfRun(steps=1)).sampling
    for sampling in (*(SamplingSettings(8, 4, 4, depth_gradient=wished) for wished in (False, True)), authors):
        config = replace(configured("nowhere", "field.has_fine=true"), sampling=sampling)
        field = make_field(config).eval()
        encoded = field.encode(item.sources([0], CPU))
        rays = item.rays(torch.tensor([[12.0, 12], [11, 12]]), torch.zeros(2), CPU)
        _, fine = render_rays(field, encoded, rays, (1.25, 2.75), sampling, 1.0)
        fine.color.sum().backward()
        gradient = field.mlp_coarse.lin_in.weight.grad
        found.append(gradient is not None and bool(gradient.abs().max() > 0))
    assert found == [False, True, True]


def test_pixels_are_drawn_within_the_object_boxes_first(generator):
    item = ball(3)
    views, columns, rows = draw_pixels(item, 2000, generator, whole=False)
    for view in range(item.n_views):
        down, across = item.filled[view].any(1).nonzero(), item.filled[view].any(0).nonzero()
        here = views == view
        assert {int(rows[here].min()), int(rows[here].max())} == {int(down.min()), int(down.max())}
        assert {int(columns[here].min()), int(columns[here].max())} == {int(across.min()), int(across.max())}
    _, columns, rows = draw_pixels(item, 20000, generator, whole=True)
    assert torch.bincount(rows * 24 + columns, minlength=576).min() > 0


def test_jitter_leaves_white_balance_alone_and_changes_all_views_alike(generator):
    item = ball(1)
    assert jittered(item, 0.0, generator) is item
    other = jittered(item, 0.3, generator)
    assert not torch.equal(other.pictures, item.pictures)
    same = (item.pictures == item.pictures[0, 12, 12]).all(-1)  # all that has the ball's color has one color again
    assert len(torch.unique(other.pictures[same], dim=0)) == 1


def test_evaluation_rounds_to_bytes_and_means_objects_before_categories(cpu):
    """A prior that shows white: its figures follow from the pictures alone."""
    config = configured("nowhere")
    field = make_field(config).eval()
    prior = Prior(field, config)
    prior = replace(prior, field=field)
    field.forward = lambda encoded, positions, directions, fine=False: (
        torch.zeros(len(positions)),
        torch.zeros(len(positions), 3),
    )
    items = [ball(0), ball(1)._replace(category="others"), ball(2, n_views=9)]
    found = evaluate(prior, items, [1], CPU, without=[0])
    of_object = []
    for seed, n in ((0, 6), (1, 6), (2, 9)):
        pictures = ball_views(seed, n_views=n)[1][2:] / 255
        of_object.append(np.mean([-10 * np.log10(np.mean((picture - 1) ** 2)) for picture in pictures]))
    assert [one["psnr"] for one in found["objects"]] == pytest.approx(of_object, abs=1e-4)
    assert found["psnr"] == pytest.approx(np.mean(of_object), abs=1e-4)
    assert found["categories"]["others"]["psnr"] == pytest.approx(of_object[1], abs=1e-4)
    assert found["n_images"] == 4 + 4 + 7
    assert rounded(torch.tensor([0.5, 0.5019, 1.2, -1])).mul(255).tolist() == pytest.approx([128, 128, 255, 0])


def test_view_lists_are_read_and_wrong_ones_are_told(tmp_path):
    file = tmp_path / "src_dvr.txt"
    file.write_text("chairs a 3\nchairs b 1 2\n\n")
    assert read_view_list(file) == {("chairs", "a"): [3], ("chairs", "b"): [1, 2]}
    file.write_text("chairs a three\n")
    with pytest.raises(RunError, match="line 1"):
        read_view_list(file)
    with pytest.raises(RunError, match="6 views"):
        targets_of(ball(0), [0], [7], ())
    assert targets_of(ball(0), [0], [2, 1, 2, 0], [1]) == [2]


def test_sets_have_their_splits_and_sets_without_hold_out_every_eighth(tmp_path, balls):
    settings = ObjectSettings(str(balls))
    assert [len(entries_of(settings, split)) for split in ("train", "test")] == [6, 2]
    with pytest.raises(ValueError, match="no objects of split 'val'"):
        entries_of(settings, "val")
    for seed in range(9):
        write_object(tmp_path / "plain" / f"{seed}", seed, n_views=2, size=8)
    plain = ObjectSettings(str(tmp_path / "plain"))
    assert [entry.name for entry in entries_of(plain, "test")] == ["0", "8"]
    assert len(entries_of(plain, "train")) == 7
    for place in (balls, tmp_path / "plain"):
        with pytest.raises(ValueError, match="split: expected one of train, val, test, got 'tset'"):
            entries_of(ObjectSettings(str(place)), "tset")


def test_objects_come_with_the_bounds_and_outlines_of_their_set(balls):
    settings = ObjectSettings(str(balls))
    item = read_object(entries_of(settings, "train")[0], settings)
    assert (item.near, item.far) == (1.25, 2.75)
    assert item.n_views == 6
    assert torch.equal(item.filled, (torch.from_numpy(ball_views(0)[1]) != 255).any(-1))
    two = read_object(entries_of(settings, "train")[0], replace(settings, most_views=2, near=1.5, far=2.5))
    assert (two.n_views, two.near, two.far) == (2, 1.5, 2.5)


def test_refining_brings_the_given_views_nearer(cpu, balls):
    config = configured(balls)
    prior = Prior(make_field(config).eval(), config)
    item = ball(100)
    before = evaluate(prior, [item], [0, 1], CPU, targets=[2, 3])
    weights = {name: value.clone() for name, value in prior.field.state_dict().items()}
    errors = []
    refined = refine(prior, item, [0, 1], 60, CPU, n_rays=64, learning_rate=3e-3, report=lambda done, text: errors.append(text))
    assert evaluate(refined, [item], [0, 1], CPU, targets=[2, 3])["psnr"] > before["psnr"] + 1
    assert all(torch.equal(weights[name], value) for name, value in prior.field.state_dict().items())
    assert len(errors) == 60


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["batch.n_rays=0"], "batch: n_rays: expected 1 to 1e+07, got 0"),
        (["batch.views=0,1"], "batch: views: expected one or more numbers of at least 1, got (0, 1)"),
        (["batch.color_jitter=1"], "batch: color_jitter: expected at least 0 and less than 1, got 1"),
        (["sampling.n_coarse=1"], "sampling: n_coarse: expected 2 to 10000, got 1"),
        (["sampling.depth_std=-1"], "sampling: depth_std: expected at least 0, got -1"),
        (["field.n_inject=6"], "field: n_inject: expected 1 to 5, got 6"),
        (["encoder.n_stages=5"], "encoder: n_stages: expected 3 to 4, got 5"),
        (["objects.most_views=0"], "objects: most_views: expected at least 1, got 0"),
        (["objects.near=2", "objects.far=1"], "objects: far: expected more than near, 2, got 1"),
        (["optimiser.learning_rate=-1"], "optimiser: learning_rate: expected 0 to 100, got -1"),
        (["optimiser.warm_up=1"], "optimiser: warm_up: expected at least 0 and less than 1, got 1"),
        (["run.validate_every=-1"], "run: validate_every: expected at least 0, got -1"),
    ],
)
def test_a_value_out_of_range_is_told_by_the_settings_name(settings, told):
    with pytest.raises(SettingsError) as caught:
        apply_settings(published(ObjectSettings(""), PixelNerfRun()), settings)
    assert str(caught.value) == told


def test_a_batch_has_source_views():
    with pytest.raises(ValueError, match="views: expected one or more"):
        ObjectBatchSettings(views=())


def test_dtu_trains_and_evaluates_end_to_end(cpu, tmp_path):
    """views 25, 22, 28 of one scan; shrunk networks, a few rays."""
    folder = data_folder("dtu_scan65_400x300")
    settings = ["batch.views=1,3", "batch.n_objects=1", "sampling.hull=false", "sampling.n_coarse=4", "objects.most_views=29"]
    config = configured(folder, *settings, "objects.background=black", "batch.color_jitter=0.1", steps=3)
    run(tmp_path / "run", config)
    prior = load_prior(tmp_path / "run", CPU)
    objects = ObjectSet(config.objects, "test")
    assert objects[0].size == (400, 300)
    found = evaluate(prior, objects, [25, 22, 28], CPU, targets=[23])
    assert found["n_images"] == 1
    assert 3 < found["psnr"] < 40
