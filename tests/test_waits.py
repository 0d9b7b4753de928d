"""On a GPU: every tensor lies where its operation does, and a step waits for the device where it has to and nowhere else."""

import math
from collections import Counter

import pytest
import torch
from ball_scene import views_of_ball
from pretended_gpu import GPU, HOST, pretended_gpu

from taichi_nerf import runtime
from taichi_nerf.kernels import probe
from taichi_nerf.later import Later
from taichi_nerf.ops import ray_marching
from taichi_nerf.runtime import DeviceArray
from taichi_nerf.training import guard, methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.distributed import World
from taichi_nerf.training.trainer import Trainer

HASHED = ("batch.n_samples=4096", "field.n_levels=4", "field.precision=float32", "field.mlp.implementation=taichi")
NGP = (*HASHED, "occupancy.resolution=32", "grid.every=2")
NERF = ("nerf.n_samples=16", "nerf.n_samples_fine=16", "batch.n_rays=32", "field.n_layers=2", "field.n_hidden=16")
MIPNERF = ("mipnerf.n_samples=16", "batch.n_rays=32", "field.n_layers=2", "field.n_hidden=16")

# How much there is to be looked at. Of a training that looks back instead: at the samples of the step before.
PROPOSALS = {"ngp_proposal_model._propose": 1, "proposal_sampler._left": 1, "compositing.visible_samples": 1}
LOOK = {"trainer._learn_pace": 1}
METHODS = {
    "ngp": (NGP, {}, LOOK),
    "torch": ((*NGP, "field.mlp.implementation=torch", "batch.importance=0", "loss.spread=0.1"), {}, LOOK),
    "poses": ((*NGP, "poses.refine=true", "poses.from_step=0"), {}, LOOK),
    "appearance": ((*NGP, "appearance.enabled=true", "loss.depth=0.1"), {}, LOOK),
    "proposal": ((*HASHED, "sampler.kind=proposal"), PROPOSALS, {}),
    "resident": (
        (*NGP, "backend.resident=true"),
        {"field.has_finite_gradients": 1, "pipeline.forward": 1},
        {"trainer.step": 1},  # at the end of the step itself, with nothing given since
    ),
    "nerf": (NERF, {"cast.cast": 1}, {}),
    "mipnerf": (MIPNERF, {"cast.cast": 1}, {}),
}
BUSY = 150  # operations that the device has still to do when the host looks back: that step's gradients


def trainer(method, device, settings=()):
    scene, _ = views_of_ball(n_views=3, size=24)
    run = RunSettings(method if "nerf" in method else "ngp", "small" if "nerf" in method else "default", steps=20)
    config, _ = methods.choose(scene, SceneSettings("ball"), run, HOST)
    return Trainer(methods.changed(config, [*METHODS[method][0], *settings]), scene, device, World(device=device))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_a_gpu_only_where_it_has_to(cpu, method):
    with pretended_gpu() as gpu:
        made = trainer(method, GPU)
        for _ in range(2):  # the first learns how much room the next ones need
            made.step()
        for number in range(3):
            made.model.pace = 1.1 + 0.1 * number  # of a model that has one: steps along rays change with it
            gpu.waits.clear()
            gpu.looks.clear()
            made.step()
            assert Counter(where for where, _ in gpu.waits) == METHODS[method][1]
            assert Counter(where for where, _ in gpu.looks) == METHODS[method][2]
            assert all((given > BUSY) == (where != "trainer.step") for where, given in gpu.looks)


@pytest.mark.parametrize("method", ["ngp", "proposal"])
def test_the_path_of_gpus_learns_what_that_of_processors_learns(cpu, method):
    same_draws = ["culling.chance=0"]  # one number is drawn for each sample that there is room for
    on_host = trainer(method, HOST, same_draws)
    expected = [on_host.step() for _ in range(6)]
    with pretended_gpu():
        on_gpu = trainer(method, GPU, same_draws)
        found = [on_gpu.step() for _ in range(6)]
        assert [step.loss for step in found] == pytest.approx([step.loss for step in expected], rel=1e-3)  # measured: 2e-6
        assert [step.n_samples for step in found] == [step.n_samples for step in expected]
        assert [step.n_rays for step in found] == [step.n_rays for step in expected]
        saved, wanted = on_gpu.state_dict(), on_host.state_dict()
        assert saved["n_rays"] == wanted["n_rays"]
        assert saved["guard"] == pytest.approx(wanted["guard"], rel=1e-3)


def weights_of(made):
    return {name: parameter.detach().clone() for name, parameter in made.model.named_parameters()}


def test_a_gpu_leaves_out_a_step_that_is_no_number_and_tells_so_later(cpu):
    with pretended_gpu():
        made = trainer("ngp", GPU)
        for _ in range(3):
            made.step()
        before, steps = weights_of(made), made.optimiser.state[made.model.field.table]["step"].clone()
        right = made.model.compare
        made.model.compare = lambda *given: (lambda found: found._replace(loss=found.loss * float("nan")))(right(*given))
        assert math.isnan(made.step().loss)
        assert all(torch.equal(value, before[name]) for name, value in weights_of(made).items())
        assert made.optimiser.state[made.model.field.table]["step"] == steps
        made.model.compare = right
        made.step()
        made.step()
        assert made.guard.n_skipped == 1
        assert not torch.equal(made.model.field.table, before["field.table"])
        assert made.optimiser.state[made.model.field.table]["step"] == steps + 2


def test_a_step_whose_samples_found_no_room_is_left_out_and_the_next_has_it(cpu):
    with pretended_gpu():
        made = trainer("ngp", GPU)
        for _ in range(3):
            made.step()
        before = weights_of(made)
        rooms, errors = made.model.rooms, made.errors.errors.clone()
        rooms._room, (_, wanted) = None, rooms._told
        wanted.read()[0] //= 4
        made.step()
        assert all(torch.equal(value, before[name]) for name, value in weights_of(made).items())
        assert torch.equal(made.errors.errors, errors)  # rays that were cut short say nothing of their pixels
        made.step()
        assert not torch.equal(made.model.field.table, before["field.table"])
        assert made.state_dict()["guard"]["n_skipped"] == 0
        assert made.guard.n_seen == 4  # of five, one was no step


def test_a_training_on_a_gpu_that_goes_bad_returns(cpu, monkeypatch):
    for name, steps in (("SETTLED", 4), ("EVERY", 4), ("PATIENCE", 3)):
        monkeypatch.setattr(guard, name, steps)
    with pretended_gpu():
        made = trainer("ngp", GPU)
        for _ in range(6):
            made.step()
        good = made.guard._good[0]["field.table"].clone()
        right = made._verdict
        far = torch.full((), 9.0, device=GPU)
        made._verdict = lambda found: right(found._replace(error=far))
        for _ in range(4):
            made.step()
        assert made.guard.n_returns == 0
        made.step()  # what was learned since is given up, and a step is made from there
        assert made.guard.n_returns == 1
        rate = made.optimiser.param_groups[0]
        assert (made.model.field.table - good).abs().max() < 2 * rate["lr"]
        assert rate["lr"] == pytest.approx(rate["first_lr"] * made.model.rate(10 / 20))  # of now, not of then
        assert len(made._given) == 1  # the steps between are undone, and nobody is told of them


def test_a_state_that_is_loaded_gets_the_room_that_it_needs(cpu):
    """That of warming up, when every cell is taken for occupied, is many times as much."""
    with pretended_gpu():
        made = trainer("ngp", GPU)
        made.warm_up()
        assert made.model.rooms.room(made.n_rays) is None
        made.step()
        made.step()
        assert made.model.rooms.room(made.n_rays) is not None
        made.load_state_dict(made.state_dict(copied=True))
        assert made.model.rooms.room(made.n_rays) is None


def test_who_waits_for_a_step_waits_for_training(cpu, monkeypatch):
    """Once; what was told is not asked again."""
    with pretended_gpu():
        made = trainer("ngp", GPU)
        step, running, read = made.step(), [], Later.read
        monkeypatch.setattr(Later, "read", lambda later: (running.append(made.stopwatch._started is not None), read(later))[1])
        assert math.isfinite(step.loss)
        assert running == [True, True]  # for the verdict, and for the number of samples
        assert math.isfinite(step.psnr)
        assert len(running) == 2


def test_a_model_on_a_gpu_shows_pictures_and_is_saved(cpu):
    with pretended_gpu():
        made = trainer("ngp", GPU)
        made.step()
        made.load_state_dict(made.state_dict(copied=True))
        pixels = 24 * torch.rand(64, 2)
        rays = made.model.rig.rays(pixels.to(GPU), torch.zeros(64, dtype=torch.int32, device=GPU))
        picture = made.model.picture(rays, (8, 8), with_normals=True)
        assert {part.device.type for part in picture} == {"cuda"}


def test_distances_to_what_is_occupied_are_where_the_backend_computes(cpu):
    with pretended_gpu():
        bits = DeviceArray(torch.full((1024,), -1, dtype=torch.int32))
        assert ray_marching.spread_bits(bits, 32).device.type == "cuda"


WAITING = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0] > 1),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 1],
    "mask of a store": lambda x: x.__setitem__(x > 1, torch.zeros_like(x[:2])),
    "bincount": lambda x: x.long().bincount(),
    "cpu": lambda x: x.cpu(),
    "to the host": lambda x: x.to("cpu", non_blocking=True),  # whoever reads it has to wait
    "from the host": lambda x: torch.ones(3).to(x.device),
    "much from the host": lambda x: torch.ones(1000).to(x.device, non_blocking=True),
    "copy": lambda x: x.copy_(torch.ones(4)),
    "tensor": lambda x: torch.tensor([1.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0]),
}
NOT_WAITING = {
    "sum": lambda x: x.sum(),
    "where": lambda x: torch.where(x > 1, x, 0.0),
    "full": lambda x: torch.full((2,), 3.0, device=x.device),
    "new_zeros": lambda x: x.new_zeros(2),
    "index": lambda x: x[torch.tensor([0, 1]).to(x.device, non_blocking=True)],
    "staged": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "pinned": lambda x: torch.ones(1000).pin_memory().to(x.device, non_blocking=True),
    "where it is": lambda x: x.to(x.device),
    "type": lambda x: x.to(torch.float64),
    "backward": lambda x: x.clone().requires_grad_().square().sum().backward(),
}


@pytest.mark.parametrize("name", [*WAITING, *NOT_WAITING])
def test_the_pretended_gpu_waits_where_cuda_does(cpu, name):
    with pretended_gpu() as gpu:
        x = torch.arange(4.0, device=GPU)
        gpu.waits.clear()
        (WAITING | NOT_WAITING)[name](x)
        assert len(gpu.waits) == (name in WAITING)


def test_the_pretended_gpu_refuses_what_cuda_refuses(cpu):
    with pretended_gpu():
        x, y = torch.arange(4.0, device=GPU), torch.arange(4.0)
        assert {x[1:].view(3, 1).device.type, (x + 1).device.type, torch.zeros_like(x).device.type} == {"cuda"}
        assert y.device.type == "cpu"
        for refused in (lambda: x + y, lambda: torch.cat([x, y]), lambda: x.index_select(0, torch.tensor([1]))):
            with pytest.raises(RuntimeError, match="on the same device"):
                refused()
        assert (x * torch.tensor(2.0)).device.type == "cuda"  # a single number may come from the host
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        with pytest.raises(RuntimeError, match="device type for generator"):
            torch.rand(3, generator=torch.Generator(), device=GPU)
        with pytest.raises(RuntimeError, match="square was given the host's memory"):
            ray_marching.launch(probe.square, y)
    assert runtime.current().arch == "cpu"
