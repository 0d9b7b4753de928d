"""The refiner: where it begins, its diffusion, its losses, and that it learns on a ball whose turn is known."""

from dataclasses import replace

import pytest
import torch

from taichi_nerf.generator.depth_pose.geometry import motion_of
from taichi_nerf.generator.depth_pose.loss import warped
from taichi_nerf.generator.depth_pose.model import DepthPose, DepthPoseSettings
from taichi_nerf.generator.directions import Directions
from taichi_nerf.generator.refiner import training as refiner_training
from taichi_nerf.generator.refiner.files import load_refiner, save_refiner
from taichi_nerf.generator.refiner.loss import turn_loss, visible_in_both, warp_loss
from taichi_nerf.generator.refiner.natural import NaturalMean
from taichi_nerf.generator.refiner.network import Refiner, RefinerSettings, linear_schedule, refine
from taichi_nerf.generator.refiner.training import Pairs, RefinerTraining, train_refiner
from taichi_nerf.generator.turns import Turns
from taichi_nerf.settings import OlderSettings, SettingsError
from taichi_nerf.training.checkpoint import load_checkpoint, save_checkpoint

from turning_sphere import FIELD_OF_VIEW, TURN, Ball

SMALL = RefinerSettings(w_dim=4, n_layers=10, width=32, n_blocks=2)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(4)


def test_the_schedule_is_the_product_of_what_is_kept():
    alpha, kept = linear_schedule(1000), 1.0
    assert alpha[0] == 1
    for i in range(1000):
        kept *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
    assert alpha[-1].item() == pytest.approx(kept, rel=1e-3)
    assert kept < 1e-4  # nothing is left at the end


def test_it_begins_by_changing_nothing():
    refiner, codes = Refiner(SMALL), torch.randn(3, 10, 4)
    turned = codes + torch.randn(3, 10, 4)
    turned[:, :6] = turned[:, :1]
    found = refine(refiner, codes, turned, torch.randn(3, 6), (0, 6))
    assert torch.allclose(found, turned, atol=1e-5)


def test_what_is_known_before_learning_is_the_mean_of_the_posterior():
    """ŵ ~ N(w, 1): among drawn pairs of ŵ and ŵ_t, the mean of ŵ near an observed ŵ_t is what the untrained refiner says."""
    refiner, n = Refiner(SMALL), 400_000
    time = torch.full((n,), 300)
    clean = 0.5 + torch.randn(n, 1)
    noised = refiner.noised(clean, time, torch.randn(n, 1))
    near = (noised - 1.0).abs() < 0.05
    says = refiner(torch.full((1, 4), 0.5), torch.full((1, 4), 1.0), torch.zeros(1, 6), time[:1])
    assert says[0, 0].item() == pytest.approx(clean[near].mean().item(), abs=0.03)


def test_many_steps_of_an_untrained_refiner_lead_back_to_the_source_from_all_noise():
    refiner, codes = Refiner(SMALL), torch.randn(2, 10, 4)[:, :1].repeat(1, 10, 1)
    found = refine(refiner, codes, codes + 3, torch.zeros(2, 6), (0, 10), n_steps=10, start=1000)
    assert found.isfinite().all()
    assert (found - codes).abs().mean() < (found - codes - 3).abs().mean()


def test_a_few_steps_from_little_noise_stay_near_the_turned_code():
    refiner, codes = Refiner(SMALL), torch.randn(2, 10, 4)[:, :1].repeat(1, 10, 1)
    found = refine(refiner, codes, codes + 0.5, torch.zeros(2, 6), (0, 10), n_steps=4, start=20)
    assert (found - codes - 0.5).abs().max() < 0.3


@pytest.mark.parametrize("scope", ["edited", "all"])
def test_flattening_is_undone_and_other_layers_are_left_alone(scope):
    refiner = Refiner(RefinerSettings(w_dim=4, n_layers=10, width=8, scope=scope))
    refiner.mean.normal_()
    refiner.deviation.fill_(2.0)
    codes = torch.randn(3, 10, 4)
    codes[:, :5] = codes[:, :1]
    assert torch.allclose(refiner.unflat(refiner.flat(codes, (0, 5)), codes, (0, 5)), codes, atol=1e-5)
    changed = refiner.unflat(refiner.flat(codes, (0, 5)) + 1, codes, (0, 5))
    assert torch.equal(changed[:, 5:], codes[:, 5:]) == (scope == "edited")


@pytest.mark.parametrize("scope", ["edited", "all"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_what_is_kept_of_the_turn_is_out_of_the_refiners_reach(scope, keep):
    """A refiner that would change everything: along the turn only what is not kept of it, across it all the same."""
    refiner = Refiner(RefinerSettings(w_dim=4, n_layers=3, width=8, scope=scope, keep=keep))
    refiner.turn.copy_(torch.tensor([0.6, 0.0, 0.8, 0.0]))
    torch.nn.init.normal_(refiner.leave.weight)
    free = Refiner(RefinerSettings(w_dim=4, n_layers=3, width=8, scope=scope, keep=0.0))
    free.load_state_dict(refiner.state_dict())
    codes = torch.randn(2, 5, refiner.settings.n_in)
    pose, time = torch.randn(5, 6), torch.zeros(5, dtype=torch.long)
    kept, whole = (each(codes[0], codes[1], pose, time) - codes[1] for each in (refiner, free))
    kept, whole = kept.unflatten(-1, (-1, 4)), whole.unflatten(-1, (-1, 4))
    assert torch.allclose(kept @ refiner.turn, (1 - keep) * (whole @ refiner.turn), atol=1e-5)
    across = torch.eye(4) - torch.outer(refiner.turn, refiner.turn)
    assert torch.allclose(kept @ across, whole @ across, atol=1e-5)
    assert (whole @ refiner.turn).abs().min() > 1e-3


def test_the_warp_loss_is_of_the_mask_and_not_of_pictures_that_show_too_little():
    source, warp = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    warp[0, :, 0] = 2.0
    warp[1] = 5.0
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, :2] = True
    mask[1, 0, 0] = True
    assert warp_loss(warp, source, mask, 0.25).item() == pytest.approx(2.0)  # half of the mask is wrong by 2: 4 / 2
    assert warp_loss(warp, source, mask & False, 0.25) == 0


def truth(steps):
    """Motions of the ball's camera, and depth, of a network that was never wrong."""
    six = torch.zeros(len(steps), 6)
    six[:, 1] = TURN * steps
    return motion_of(six, 1.0)


def test_the_ball_warped_by_its_true_depth_and_turn_is_itself(cpu):
    ball = Ball()
    codes = torch.zeros(1, 10, 4)
    turned = codes.clone()
    turned[..., 0] = 0.6
    a, b = ball.synthesis(codes), ball.synthesis(turned)
    model = DepthPose(DepthPoseSettings(width=4, field_of_view=FIELD_OF_VIEW))
    motion, depth = truth(torch.tensor([0.6])), ball.synthesis.depth[None]
    seen = visible_in_both(model, a, b, depth, depth, motion) & ball.synthesis.hit
    assert seen.float().mean() > 0.1
    warp = warped(b, depth, motion, model.intrinsics(64, 1))[0]
    error = (warp - a).abs().mean(1)[seen].mean()
    assert error < 0.25 * (b - a).abs().mean(1)[seen].mean()


def test_it_learns_to_undo_a_drift_and_keeps_the_turn(cpu):
    """A direction that turns and colors at once: the refiner has to take the color back, by the warp alone."""
    ball = Ball()
    unit = torch.tensor([[1.0, 0.7, 0.0, 0.0]])
    turns = Turns(ball, Directions(unit, torch.zeros(4), torch.ones(1), torch.ones(1), torch.ones(1)), reach=1.0)
    steps = torch.linspace(-1, 1, 5)
    codes = turns.codes(list(range(12)))
    motions = truth(steps).expand(12, 5, 3, 4)
    model = DepthPose(DepthPoseSettings(width=4, field_of_view=FIELD_OF_VIEW))
    depth = ball.synthesis.depth
    masks = torch.stack([visible_in_both(model, ball.synthesis(codes[i : i + 1]).expand(5, -1, -1, -1),
                         ball.synthesis(codes[i : i + 1].expand(5, -1, -1)
                                        + steps[:, None, None] * torch.tensor([1.0, 0, 0, 0])),
                         depth.expand(5, 64, 64), depth.expand(5, 64, 64), truth(steps)) for i in range(12)])  # fmt: skip
    masks = masks & ball.synthesis.hit
    pairs = Pairs(codes, ball.synthesis(codes), depth.expand(12, 64, 64), steps, motions, masks)
    training = RefinerTraining(steps=150, batch=8, learning_rate=3e-3, latent=0.0, turn=0.0, natural=0.0)  # by the warp alone
    refiner, told = train_refiner(turns, model, SMALL, training, pairs)
    assert told["steps"] == 150
    source, plain = codes[:1].expand(5, -1, -1), turns.turned(codes[:1].expand(5, -1, -1), steps)
    six = torch.zeros(5, 6)
    six[:, 1] = TURN * steps
    refined = refine(refiner, source, plain, six, turns.layers)
    color = lambda found: (found - source)[:, 0, 1].abs().max()  # noqa: E731
    assert color(refined) < 0.5 * color(plain)
    angle = (refined - source)[:, 0, 0]
    assert ((angle[-1] - angle[0]) / 2.0).item() == pytest.approx(1.0, abs=0.25)


def blind_pairs(turns, n=3):
    """Of which no warp sees anything: what is learned then is by the other losses."""
    codes, steps = turns.codes(list(range(n))), torch.linspace(-1, 1, 5)
    images, motions = turns.generator.synthesis(codes), truth(steps).expand(n, 5, 3, 4)
    return Pairs(codes, images, torch.ones(n, 64, 64), steps, motions, torch.zeros(n, 5, 64, 64, dtype=torch.bool))


def turns_of_a_ball():
    unit = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    return Turns(Ball(), Directions(unit, torch.zeros(4), torch.ones(1), torch.ones(1), torch.ones(1)), reach=1.0)


def test_every_weight_learns(cpu):
    turns, model = turns_of_a_ball(), DepthPose(DepthPoseSettings(width=4, field_of_view=FIELD_OF_VIEW))
    torch.manual_seed(0)
    before = dict(Refiner(SMALL).named_parameters())
    training = RefinerTraining(steps=6, batch=4, turn=0.0, natural=0.0)
    refiner, _ = train_refiner(turns, model, SMALL, training, blind_pairs(turns), 0)
    assert not [name for name, weight in refiner.named_parameters() if torch.equal(weight, before[name])]


def test_losses_count_as_is_set_and_the_rate_falls_over_the_second_half(cpu, monkeypatch):
    """By losses whose slopes are 1 to 5, and what Adam is given."""
    seen, slopes = [], {"warp": 1.0, "latent": 2.0, "feature": 3.0, "turn": 4.0, "natural": 5.0}

    class Noting(torch.optim.AdamW):
        def step(self):
            (group,) = self.param_groups
            seen.append((group["lr"], float(self.refiner.leave.bias.grad[0])))

    def losses(turns, model, refiner, *others):
        Noting.refiner = refiner
        return {name: slope * refiner.leave.bias[0] for name, slope in slopes.items()}

    monkeypatch.setattr(torch.optim, "AdamW", Noting)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    monkeypatch.setattr(refiner_training, "batch_losses", losses)
    monkeypatch.setattr(NaturalMean, "of", lambda *_: None)
    turns = turns_of_a_ball()
    training = RefinerTraining(4, learning_rate=0.1, warp=0.5, latent=0.2, latent_share=0.5, feature=2.0, turn=0.25, natural=0.1)
    train_refiner(turns, DepthPose(DepthPoseSettings(width=4)), SMALL, training, blind_pairs(turns))
    slope = 0.5 * 1 + 0.2 * (0.5 * 2 + 2.0 * 3) + 0.25 * 4 + 0.1 * 5
    assert [given for _, given in seen] == pytest.approx([slope] * 4)
    assert [rate for rate, _ in seen] == pytest.approx([0.1, 0.1, 0.1, 0.05])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_samples_has_no_noise(cpu, share, monkeypatch):
    times, right = [], Refiner.forward
    monkeypatch.setattr(Refiner, "forward", lambda self, *given: times.append(given[-1]) or right(self, *given))
    turns, model = turns_of_a_ball(), DepthPose(DepthPoseSettings(width=4, field_of_view=FIELD_OF_VIEW))
    training = RefinerTraining(1, batch=100, clean_share=share, turn=0.0, natural=0.0)
    train_refiner(turns, model, SMALL, training, blind_pairs(turns))
    assert float((times[0] == 0).float().mean()) == pytest.approx(share, abs=0.2)


class TellsBrightness:
    """In place of pose networks: the turn from one image to another is how much brighter it is, and 0.3 in any case."""

    def six(self, first, second):
        six = torch.zeros(len(first), 6)
        six[:, 1] = (second - first).mean((1, 2, 3)) + 0.3
        return six


def test_the_turn_loss_is_of_the_rotation_between_turned_and_refined():
    turned = torch.rand(3, 3, 8, 8)
    assert turn_loss(TellsBrightness(), turned, turned).item() == pytest.approx(0.0, abs=1e-12)
    brighter = torch.tensor([0.0, 0.2, 0.4])[:, None, None, None]
    assert turn_loss(TellsBrightness(), turned, turned + brighter).item() == pytest.approx((0.2**2 + 0.4**2) / 3, rel=1e-5)


class TellsColor(DepthPose):
    """Its turn is how much redder than green the second image is, which number 1 of the ball's code decides."""

    def six(self, first, second):
        redness = [(seen[:, 0] - seen[:, 1]).mean((1, 2)) for seen in (first, second)]
        return torch.nn.functional.pad((10 * (redness[1] - redness[0]))[:, None], (1, 4))


def test_with_the_turn_loss_a_refiner_that_is_drawn_to_the_source_keeps_the_turn():
    ball, steps = Ball(), torch.linspace(-1, 1, 5)
    unit = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    turns = Turns(ball, Directions(unit, torch.zeros(4), torch.ones(1), torch.ones(1), torch.ones(1)), reach=1.0)
    codes = turns.codes(list(range(6)))
    blind = torch.zeros(6, 5, 64, 64, dtype=torch.bool)
    pairs = Pairs(codes, ball.synthesis(codes), torch.ones(6, 64, 64), steps, truth(0 * steps).expand(6, 5, 3, 4), blind)
    settings, kept = replace(SMALL, keep=0.0), {}
    for weight in (0.0, 30.0):
        training = RefinerTraining(steps=100, batch=8, learning_rate=3e-3, warp=0.0, latent=0.3, feature=0.0, turn=weight)
        refiner, _ = train_refiner(turns, TellsColor(DepthPoseSettings(width=4)), settings, training, pairs)
        plain = turns.turned(codes, torch.ones(6))
        refined = refine(refiner, codes, plain, torch.zeros(6, 6), turns.layers)
        kept[weight] = ((refined - codes)[:, 0, 1].mean() / (plain - codes)[:, 0, 1].mean()).item()
    assert kept[0.0] < 0.4
    assert kept[30.0] > 0.7


def test_the_natural_loss_pulls_each_view_by_what_the_running_mean_is_off():
    mean, deviation = torch.randn(3, 2, 2), torch.rand(3, 2, 2) + 0.5
    natural, batches = NaturalMean(mean, deviation), torch.randn(4, 5, 3, 2, 2)
    for features in batches[:-1]:
        natural.loss(features)
    last = batches[-1].clone().requires_grad_()
    loss = natural.loss(last)
    scale = deviation + 0.1 * deviation.mean()
    off = batches.mean((0, 1)) - mean  # few batches so far: all of them count alike
    assert loss.item() == pytest.approx((off / scale).square().mean().item(), rel=1e-5)
    loss.backward()
    assert torch.allclose(last.grad, (2 * off / scale**2 / off.numel() / 5).expand(5, -1, -1, -1), atol=1e-6)


def test_with_the_natural_loss_sources_that_are_all_alike_in_something_do_not_pass_it_on():
    """Subjects that are all redder than the generator's: of each by itself nothing tells."""
    ball, steps = Ball(), torch.linspace(-1, 1, 5)
    unit = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    turns = Turns(ball, Directions(unit, torch.zeros(4), torch.ones(1), torch.ones(1), torch.ones(1)), reach=1.0)
    codes = turns.codes(list(range(30)))
    codes[..., 1] += 0.8 - codes[..., 1].mean()
    blind = torch.zeros(30, 5, 64, 64, dtype=torch.bool)
    pairs = Pairs(codes, ball.synthesis(codes), torch.ones(30, 64, 64), steps, truth(0 * steps).expand(30, 5, 3, 4), blind)
    red, spread = {}, {}
    for weight in (0.0, 0.5):
        training = RefinerTraining(steps=150, batch=16, learning_rate=3e-3, warp=0.0, latent=0.1, turn=0.0, natural=weight)
        model = DepthPose(DepthPoseSettings(width=4, field_of_view=FIELD_OF_VIEW))
        refiner, told = train_refiner(turns, model, SMALL, training, pairs)
        refined = refine(refiner, codes, turns.turned(codes, torch.ones(30)), torch.zeros(30, 6), turns.layers)[:, 0, 1]
        red[weight], spread[weight] = refined.mean().item(), refined.std().item()
    assert red[0.0] > 0.6
    assert abs(red[0.5]) < 0.4
    assert spread[0.5] > 0.5 * spread[0.0]  # subjects still differ
    assert told["natural"] > 0


def test_a_refiner_comes_back_from_its_file(tmp_path):
    refiner = Refiner(SMALL)
    torch.nn.init.normal_(refiner.leave.weight)
    save_refiner(tmp_path / "r.safetensors", refiner, 2.5)
    again, reach = load_refiner(tmp_path / "r.safetensors")
    codes, pose = torch.randn(2, 10, 4), torch.randn(2, 6)
    assert reach == 2.5
    assert torch.equal(refine(again, codes, codes, pose, (0, 10)), refine(refiner.eval(), codes, codes, pose, (0, 10)))


def test_a_refiner_of_a_generator_that_has_grown_since_is_told():
    refiner, pose = Refiner(replace(SMALL, scope="all")), torch.zeros(2, 6)
    codes = torch.randn(2, 12, 4)
    with pytest.raises(ValueError, match=r"of 10 codes of 4 numbers, this one has 12 of 4; `taichi-nerf generator refine`"):
        refine(refiner, codes, codes, pose, (0, 12))
    with pytest.raises(ValueError, match="this one has 10 of 5"):
        refine(Refiner(SMALL), torch.zeros(2, 10, 5), torch.zeros(2, 10, 5), pose, (0, 10))
    assert refine(Refiner(SMALL), codes, codes, pose, (0, 12)).shape == codes.shape  # one code for all of them


def test_a_refiner_of_an_older_version_is_told_and_a_newer_ones_is_an_error(tmp_path):
    file = tmp_path / "r.safetensors"
    save_refiner(file, Refiner(SMALL), 2.5)
    state, _ = load_checkpoint(file)
    older = {name: value for name, value in state["settings"].items() if name != "keep"}
    save_checkpoint(file, {**state, "settings": older}, {})
    with pytest.warns(OlderSettings, match=r"r\.safetensors: of an older version .* taken as keep = 0\.75$"):
        assert load_refiner(file)[0].settings == SMALL
    save_checkpoint(file, {**state, "settings": {**older, "later": 1}}, {})
    with pytest.raises(SettingsError, match=r"r\.safetensors: unknown: later; the file is of another version"):
        load_refiner(file)
