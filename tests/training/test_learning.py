"""How every method learns: each of its weights, as its settings say, from pixels as they count and from where rays look."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from ball_scene import views_of_ball
from tiny_methods import TINY, trainer
from torch.testing import assert_close

from taichi_nerf.training.model import Compared, Shown

ALL_LOOKED_AT = ["culling.least_weight=0", "culling.early_stop=0"]  # of what is proposed
PROPOSING = {
    "ngp, proposals": ["proposal.n_samples=12", *ALL_LOOKED_AT, "proposal.least_opacity=0"],
    "mipnerf360": ["proposal.n_samples=12"],
}


def learned(made):
    """By name, but for the cameras'."""
    return {name: weight for name, weight in made.model.named_parameters() if weight.numel() and not name.startswith("rig.")}


def some_rays(made, n=32):
    """And the views that they are of."""
    generator = torch.Generator().manual_seed(3)
    views = torch.randint(8, (n,), generator=generator, dtype=torch.int32)
    return made.model.rig.rays(8 + 16 * torch.rand(n, 2, generator=generator), views), views


def looked_at(made, seed=0):
    """The ends of what a look at some rays samples [n_rays, n_samples + 1], equally many on each."""
    rays, _ = some_rays(made)
    samples = made.model.look(rays, torch.zeros(32, 3), torch.Generator().manual_seed(seed)).samples
    return torch.cat([samples.t_starts.view(32, -1), samples.t_ends.view(32, -1)[:, -1:]], -1).detach()


def around(far=50.0):
    """The ball in a scene that goes on."""
    scene, _ = views_of_ball()
    return replace(scene, bounds=replace(scene.bounds, unbounded=True, far=far))


@pytest.mark.parametrize("method", TINY)
def test_every_weight_learns(cpu, method):
    """Of colors, of density, and of what proposes where to look."""
    made = trainer(method)
    before = {name: weight.detach().clone() for name, weight in learned(made).items()}
    for _ in range(3):
        made.step()
    assert not [name for name, weight in learned(made).items() if torch.equal(weight, before[name])]


LATE = ["optimiser.decay_from=0.25", "optimiser.final_share=0.1", "optimiser.beta1=0.7", "optimiser.beta2=0.8",
        "optimiser.epsilon=0.1", "optimiser.learning_rate=0.03", "optimiser.network_rate=0.01", "optimiser.table_decay=0.5",
        "optimiser.mlp_decay=0.2", "appearance.enabled=true"]  # fmt: skip
LOG_LINEAR = ["optimiser.first_rate=0.01", "optimiser.final_rate=0.001", "optimiser.delay=0.5", "optimiser.delay_factor=0.1",
              "optimiser.beta2=0.8", "optimiser.epsilon=0.1"]  # fmt: skip
OF_NGP = {"field.table": (0.03, 0.5), "field.density_mlp": (0.01, 0.2), "field.color_mlp": (0.01, 0.2), "field.appear": (0.01, 0)}
OF_PROPOSALS = {name: (rate / (1 if "table" in name else 2), decay) for name, (rate, decay) in OF_NGP.items()}


@pytest.mark.parametrize(
    ("method", "settings", "rates", "beta1"),  # of weights whose name begins so: the first rate, and the decay
    [
        ("ngp", LATE, OF_NGP, 0.7),
        ("ngp, proposals", [*LATE, "proposal.network_share=0.5", "proposal.learning_rate=0.05"],
         {**OF_PROPOSALS, "proposals": (0.05, 0)}, 0.7),
        *((method, LOG_LINEAR, {"": (0.01, 0)}, 0.9) for method in ("nerf", "mipnerf", "mipnerf360")),
    ],
)  # fmt: skip
def test_weights_move_as_adam_says_at_the_rates_that_are_set(cpu, method, settings, rates, beta1):
    """By a loss whose slope is known and changes from step to step; the schedules are written out."""
    made, slopes = trainer(method, None, *settings, steps=8), [1.0, -0.3, 2.0, 0.5, -1.0, 0.1]
    expected = {name: weight.detach().double() for name, weight in learned(made).items()}
    means, squares = (dict.fromkeys(expected, 0.0) for _ in range(2))

    def compare(shown, generator):
        loss = slopes[made.n_steps] * sum(weight.sum() for weight in learned(made).values())
        return Compared(loss, torch.zeros(len(shown.views)), 1000)

    made.model.compare = compare
    for step, slope in enumerate(slopes):
        made.step()
        p = step / 8
        share = 0.1 ** max(0.0, (p - 0.25) / 0.75) if "ngp" in method else 0.1**p * (0.1 + 0.9 * math.sin(math.pi * min(p, 0.5)))
        for name, weight in expected.items():
            rate, decay = next(value for prefix, value in rates.items() if name.startswith(prefix))
            gradient = slope + decay * weight
            means[name] = beta1 * means[name] + (1 - beta1) * gradient
            squares[name] = 0.8 * squares[name] + 0.2 * gradient**2
            mean, square = means[name] / (1 - beta1 ** (step + 1)), squares[name] / (1 - 0.8 ** (step + 1))
            expected[name] = weight - rate * share * mean / (square**0.5 + 0.1)
    for name, weight in learned(made).items():
        assert_close(weight.detach().double(), expected[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("method", TINY)
def test_a_pixel_counts_as_much_as_its_weight_says(cpu, method):
    """By the gradient of the loss to what pixels show; weights are 1 on average."""
    made = trainer(method)
    rays, views = some_rays(made)
    weight = torch.tensor([0.0, 0.5, 1.0, 2.5]).repeat(8)

    def slopes(weight):
        truth = torch.full((32, 3), 0.3, requires_grad=True)
        shown = Shown(rays, views, truth, torch.zeros(32, 3), weight, None)
        made.model.compare(shown, torch.Generator().manual_seed(1)).loss.backward()
        return truth.grad

    assert slopes(None).abs().min() > 0
    assert_close(slopes(weight), weight[:, None] * slopes(None))


@pytest.mark.parametrize("method", TINY)
def test_what_rays_see_depends_on_where_they_begin(cpu, method):
    """In the gradient, which cameras are corrected by."""
    made = trainer(method)
    for _ in range(3):
        made.step()
    rays, _ = some_rays(made)
    origins = rays.origins.detach().requires_grad_()
    seen = made.model.look(rays._replace(origins=origins), torch.zeros(32, 3), torch.Generator().manual_seed(1))
    seen.rendered.opacity.sum().backward()
    assert origins.grad.abs().max() > 0


# --- proposals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PROPOSING)
def test_proposals_learn_as_strongly_as_is_set(cpu, method):
    def gradient(loss):
        made = trainer(method, None, *PROPOSING[method], f"proposal.loss={loss}")
        made.compare(made.draw(64)).loss.backward()
        weights = [weight.grad.flatten() for name, weight in learned(made).items() if name.startswith("proposal")]
        return torch.cat(weights)

    assert gradient(1).abs().max() > 0
    assert_close(gradient(3), 3 * gradient(1), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", PROPOSING)
def test_as_training_goes_on_rays_are_looked_at_where_proposals_say(cpu, method):
    """At first evenly, whatever these say; when the annealing is through, unevenly."""
    made = trainer(method, None, *PROPOSING[method], "proposal.anneal=0.5")
    for _ in range(3):
        made.step()
    uneven = []
    for progress in (0.0, 0.6):
        made.model.before_step(0, progress, torch.Generator().manual_seed(0))
        lengths = looked_at(made).diff()[:, 1:-1]
        uneven.append(float((lengths.std(-1) / lengths.mean(-1)).mean()))
    assert uneven[0] < 1e-3
    assert uneven[1] > 0.05


@pytest.mark.parametrize("method", PROPOSING)
@pytest.mark.parametrize("even_until", [None, 6.0])
def test_around_scenes_that_go_on_rays_are_looked_at_evenly_as_far_as_the_middle_and_in_disparity_beyond(cpu, method, even_until):
    """g(t) = t / m up to m, 2 - m / t beyond; m is where the cameras' middle is, or what is set."""
    setting = [] if even_until is None else [f"proposal.even_until={even_until}"]
    made = trainer(method, around(), *PROPOSING[method], *setting)
    m = even_until or 2.5 * math.sqrt(1.16)
    made.model.before_step(0, 0.0, torch.Generator().manual_seed(0))
    t = looked_at(made)
    assert t.min() < m < 20 < t.max()
    lengths = torch.where(t < m, t / m, 2 - m / t).diff()[:, 1:-1]
    assert_close(lengths, lengths.mean().expand_as(lengths), rtol=2e-3, atol=0)


def test_a_share_of_the_rays_on_which_nothing_is_proposed_is_looked_at_in_training_alone(cpu):
    made = trainer("ngp, proposals", None, "proposal.least_opacity=0.5", "proposal.chance=0.3", *ALL_LOOKED_AT)
    with torch.no_grad():
        made.model.proposals[0].table.fill_(-9.0)
    rays, _ = some_rays(made, 2000)
    seen = made.model.look(rays, torch.zeros(2000, 3), torch.Generator().manual_seed(0))
    share = float((seen.samples.spans[:, 1] > 0).float().mean())
    assert share == pytest.approx(0.3, abs=0.05)
    assert not made.model.picture(rays, (2000, 1)).opacity.any()


def test_there_is_density_where_proposals_lead_and_nowhere_else(cpu):
    made = trainer("ngp, proposals")
    at = 1.4 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) - 0.7
    (proposal,) = made.model.proposals
    proposal.forward = lambda positions: 10.0 * (positions[:, 0] > 0.2)
    leads = at[:, 0] > 0.2
    density = made.model.density(at)
    assert_close(density[leads], made.model.field.glance(at).density[leads])
    assert density[leads].min() > 0
    assert not density[~leads].any()


# --- samples that chance shifts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["nerf", "mipnerf"])
def test_training_looks_at_other_places_of_the_same_parts_every_time_and_pictures_at_the_same(cpu, method):
    made = trainer(method)
    rays, _ = some_rays(made)
    found = made.model._cast(rays)

    def places(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        coarse, fine, *_ = made.model._levels(found, torch.zeros(len(found.which), 3), generator)
        return coarse.samples.t_starts.view(len(found.which), -1), fine.samples.t_starts.view(len(found.which), -1)

    drawn = [places(seed)[0] for seed in range(60)]
    assert torch.equal(places(None)[0], places(None)[0])
    assert torch.equal(places(0)[0], drawn[0])
    spread = torch.stack(drawn).std(0) / (found.t_far - found.t_near)[:, None]
    n = 8 + (method == "mipnerf")  # edges rather than places
    assert_close(spread[:, 1:-1].mean(), torch.tensor(1 / (n - 1) / math.sqrt(12)), rtol=0.1, atol=0)  # of even draws


@pytest.mark.parametrize("method", ["nerf", "mipnerf"])
def test_where_the_first_samples_say_training_looks_at_other_places_every_time(cpu, method, monkeypatch):
    """Of equal first samples."""
    made = trainer(method)
    module, model = sys.modules[type(made.model).__module__], made.model
    found, right, places = model._cast(some_rays(made)[0]), module.draws, []
    for seed in range(2):
        asked = []
        drawn = lambda n, m, *rest, asked=asked: asked.append(m) or (right(n, m, *rest) if asked[1:] else torch.full((n, m), 0.5))  # noqa: E731
        monkeypatch.setattr(module, "draws", drawn)
        coarse, fine, *_ = model._levels(found, torch.zeros(len(found.which), 3), torch.Generator().manual_seed(seed))
        places.append((coarse.samples.t_starts, fine.samples.t_starts))
    assert torch.equal(places[0][0], places[1][0])
    assert (places[0][1] - places[1][1]).abs().mean() > 1e-3


@pytest.mark.parametrize("method", ["ngp", "ngp, proposals"])
def test_training_looks_at_a_share_of_the_samples_without_weight_and_pictures_at_none(cpu, method):
    here = [] if method == "ngp" else ["proposal.least_opacity=0"]
    made = trainer(method, None, "culling.least_weight=1", "culling.early_stop=0", "culling.chance=0.3", *here)
    rays, _ = some_rays(made, 200)
    seen = made.model.look(rays, torch.zeros(200, 3), torch.Generator().manual_seed(0))
    n_met = int(seen.n_marched) if method == "ngp" else 8 * int((seen.samples.spans[:, 1] > 0).sum())
    assert len(seen.samples.t_starts) / n_met == pytest.approx(0.3, abs=0.05)
    assert not made.model.picture(rays, (200, 1)).opacity.any()


@pytest.mark.parametrize(("method", "networks"), [("nerf", ["coarse", "fine"]), ("mipnerf", ["field"])])
def test_training_adds_noise_to_raw_densities_and_pictures_none(cpu, method, networks):
    made, added = trainer(method, None, f"{method}.noise=0.5"), []
    for name in networks:
        field = getattr(made.model, name)
        right = field.look
        field.look = lambda *given, right=right: added.append(given[-1]) or right(*given)
    rays, views = some_rays(made)
    made.model.compare(Shown(rays, views, torch.zeros(32, 3), torch.zeros(32, 3), None, None), torch.Generator().manual_seed(0))
    assert len(added) == 2
    for noise in added:
        assert float(noise.std()) == pytest.approx(0.5, rel=0.2)
    made.model.picture(rays, (32, 1))
    assert added[2:] == [None, None]


# --- several processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "alone"), [("nerf", 64), ("mipnerf", 64), ("mipnerf360", 64), ("ngp, proposals", 128), ("ngp", 1024)]
)
def test_processes_that_train_together_share_the_rays_of_a_step(cpu, method, alone):
    """Of the hash grid as many as take 4096 samples, when 1000 rays took 4000 of them."""
    model = trainer(method).model
    assert model.next_n_rays(1000, 4000, 1) == alone
    assert model.next_n_rays(1000, 4000, 2) == alone // 2


def test_the_number_of_rays_follows_their_samples_within_bounds(cpu):
    model = trainer("ngp", None, "batch.n_rays_most=3000", "batch.n_samples_per_ray=16").model
    found = []
    for n_rays, n_samples in ((1000, 4000), (1000, 100), (2000, 100), (1000, 10**6)):
        model.pace = 1.0
        found.append((model.next_n_rays(n_rays, n_samples, 1), model.pace))
    # As many as take 4096 samples, but no more than twice as many as before, nor than the most, nor fewer than the least. Steps
    # are stretched by as much as a ray took more than 16 samples, and no more than fivefold.
    assert found == [(1024, 1.0), (2000, 1.0), (3000, 1.0), (256, 5.0)]
    model.pace = 1.5
    model.next_n_rays(1000, 32_000, 1)
    assert model.pace == 3.0
    model.next_n_rays(1000, 8_000, 1)
    assert model.pace == pytest.approx(1.5)
    model.next_n_rays(1000, 1_000, 1)
    assert model.pace == 1.0
