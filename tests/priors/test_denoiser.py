"""The denoiser: the published sizes and names, its parts against their formulas, files of ours and of others."""

import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from taichi_nerf.priors.denoiser import Denoiser, DenoiserSettings
from taichi_nerf.priors.denoiser_blocks import Attention, LinearAttention, StandardConv, TimeEncoding
from taichi_nerf.priors.noise_schedule import NoiseSchedule
from taichi_nerf.priors.prior import Prior, PriorError, PriorSettings, load_prior, prior_bytes
from taichi_nerf.settings import OlderSettings

SMALL = DenoiserSettings(8, (1, 2))
# A selection of the names in DiffusioNeRF's checkpoint, with shapes.
PUBLISHED = {
    "init_conv.weight": (64, 4, 7, 7),
    "time_mlp.1.weight": (256, 64),
    "time_mlp.3.bias": (256,),
    "downs.0.0.mlp.1.weight": (128, 256),
    "downs.0.0.block1.proj.weight": (64, 64, 3, 3),
    "downs.0.1.block2.norm.weight": (64,),
    "downs.0.2.fn.fn.to_qkv.weight": (384, 64, 1, 1),
    "downs.0.2.fn.fn.to_out.0.weight": (64, 128, 1, 1),
    "downs.0.2.fn.fn.to_out.1.g": (1, 64, 1, 1),
    "downs.0.2.fn.norm.g": (1, 64, 1, 1),
    "downs.0.3.weight": (64, 64, 4, 4),
    "downs.3.3.weight": (512, 256, 3, 3),
    "mid_block1.block1.proj.bias": (512,),
    "mid_attn.fn.fn.to_out.weight": (512, 128, 1, 1),
    "ups.0.0.block1.proj.weight": (512, 768, 3, 3),
    "ups.0.0.res_conv.weight": (512, 768, 1, 1),
    "ups.0.3.1.weight": (256, 512, 3, 3),
    "ups.3.3.weight": (64, 64, 3, 3),
    "final_res_block.res_conv.weight": (64, 128, 1, 1),
    "final_conv.weight": (4, 64, 1, 1),
}


def filled(settings=SMALL, seed=0):
    """A denoiser all of whose parameters are random, gains and biases too."""
    generator = torch.Generator().manual_seed(seed)
    denoiser = Denoiser(settings)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return denoiser


def test_published_denoiser_has_the_published_parameters():
    denoiser = Denoiser()
    state = denoiser.state_dict()
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 36_254_980
    assert len(state) == 276  # of the 289 entries of the checkpoint's model 13 are the schedule's
    assert PUBLISHED.items() <= {name: tuple(value.shape) for name, value in state.items()}.items()


@pytest.mark.parametrize(("size", "multipliers"), [(24, (1, 2, 4)), (48, (1, 2, 4, 8)), (8, (1, 2))])
def test_noise_has_the_shape_of_patches(size, multipliers):
    denoiser = Denoiser(DenoiserSettings(8, multipliers, channels=1))
    assert denoiser(torch.zeros(2, 1, size, size), torch.tensor([3, 999])).shape == (2, 1, size, size)


def test_patches_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="multiples of 2"):
        Denoiser(SMALL)(torch.zeros(1, 4, 7, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="4, h, w"):
        Denoiser(SMALL)(torch.zeros(1, 3, 8, 8), torch.zeros(1))


def test_filters_have_mean_0_and_variance_1():
    conv = StandardConv(5, 6)
    filters = conv.filters().flatten(1)
    assert_close(filters.mean(1), torch.zeros(6), atol=1e-6, rtol=0)
    variance = conv.weight.flatten(1).var(1, correction=0)
    assert_close(filters.var(1, correction=0), variance / (variance + 1e-5))


def test_filters_that_are_kept_are_those_of_the_weights():
    """Also after the weights have changed, by training or by loading."""
    conv = StandardConv(3, 4).requires_grad_(False).eval()
    x = torch.randn(1, 3, 5, 5)
    first = conv(x)
    assert_close(conv(x), first)
    conv.load_state_dict({"weight": torch.randn(4, 3, 3, 3), "bias": torch.zeros(4)})
    changed = conv(x)
    assert_close(changed, torch.nn.functional.conv2d(x, conv.filters(), padding=1))
    conv.train()
    conv.weight.mul_(torch.linspace(-1, 1, 3 * 4 * 9).view(4, 3, 3, 3))
    conv.eval()
    assert_close(conv(x), torch.nn.functional.conv2d(x, conv.filters(), padding=1))


def test_linear_attention_is_its_double_sum(generator):
    """out_n = Σ_d q_dn Σ_m k_dm v_m / pixels: q a softmax over d, k one over places, head by head."""
    layer = LinearAttention(6)
    x = torch.randn(2, 6, 3, 4, generator=generator)
    q, k, v = (layer.to_qkv.weight[:, :, 0, 0] @ x.flatten(2)).view(2, 3, 4, 32, 12).unbind(1)
    out = torch.zeros(2, 4, 32, 12)
    for b in range(2):
        for h in range(4):
            soft_q, soft_k = q[b, h].softmax(0) / 32**0.5, k[b, h].softmax(1)
            for n in range(12):
                for m in range(12):
                    out[b, h, :, n] += (soft_q[:, n] * soft_k[:, m]).sum() * v[b, h, :, m] / 12
    assert_close(layer(x), layer.to_out(out.view(2, 128, 3, 4)), atol=1e-5, rtol=1e-4)


def test_attention_is_its_softmax(generator):
    layer = Attention(6)
    x = torch.randn(1, 6, 2, 3, generator=generator)
    q, k, v = (layer.to_qkv.weight[:, :, 0, 0] @ x.flatten(2)).view(1, 3, 4, 32, 6).unbind(1)
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    out = torch.zeros(1, 4, 32, 6)
    for h in range(4):
        for n in range(6):
            weights = torch.stack([10 * (q[0, h, :, n] * k[0, h, :, m]).sum() for m in range(6)]).softmax(0)
            out[0, h, :, n] = v[0, h] @ weights
    assert_close(layer(x), layer.to_out(out.view(1, 128, 2, 3)), atol=1e-5, rtol=1e-4)


def test_time_is_encoded_by_waves_from_1_to_10000():
    encoded = TimeEncoding(6)(torch.tensor([0.0, 7.0]))
    angles = torch.tensor([7.0, 7.0 / 100, 7.0 / 10_000])
    assert_close(encoded[1], torch.cat([angles.sin(), angles.cos()]))
    assert_close(encoded[0], torch.tensor([0.0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize("half", [False, True])
def test_a_prior_is_read_as_it_was_written(tmp_path, half):
    settings = PriorSettings(SMALL, "linear", 500, size=8, focal=30.0, nearest=0.7)
    written = Prior(settings, filled(), {"seed": 3})
    file = tmp_path / "prior.safetensors"
    file.write_bytes(prior_bytes(written, half))
    found = load_prior(file)
    assert found.settings == settings
    assert found.made == {"seed": 3}
    x = torch.randn(2, 4, 8, 8)
    assert_close(found.noise_in(x, 40), written.noise_in(x, 40), atol=2e-2 if half else 0, rtol=0)


def published_file(file, settings, seed=0, **changes):
    """A file in the layout of DiffusioNeRF's checkpoint, and its averaged denoiser."""
    online, averaged = filled(settings, seed + 1), filled(settings, seed)
    betas = {f"buffer_{i}": torch.zeros(5) for i in range(13)}
    model = {**betas, **{f"model.{name}": value for name, value in online.state_dict().items()}}
    ema = {"initted": torch.tensor([True]), "step": torch.tensor([7])}
    ema |= {f"online_model.{name}": value for name, value in model.items()}
    ema |= {f"ema_model.{name}": value for name, value in betas.items()}
    ema |= {f"ema_model.model.{name}": value for name, value in averaged.state_dict().items()}
    torch.save({"step": 650_000, "model": model, "opt": {"state": {}}, "ema": {**ema, **changes}, "scaler": None}, file)
    return averaged


@pytest.mark.parametrize(("channels", "variant"), [(4, "rgbd"), (1, "d")])
def test_published_checkpoints_are_read(tmp_path, channels, variant):
    """The averaged weights, of the size that the file tells."""
    settings = DenoiserSettings(16, (1, 2, 4, 8), channels)
    averaged = published_file(tmp_path / "prior.pt", settings).requires_grad_(False).eval()
    prior = load_prior(tmp_path / "prior.pt")
    assert prior.settings == PriorSettings(settings, variant=variant)
    assert prior.made["steps"] == 650_000
    x, t = torch.randn(1, channels, 48, 48), torch.tensor([47])
    assert_close(prior.noise_in(x, 47), averaged(x, t))


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_nothing_in_a_file_is_executed(tmp_path):
    file = tmp_path / "prior.pt"
    file.write_bytes(pickle.dumps({"ema": Harmful()}))
    with pytest.raises(PriorError, match=r"prior\.pt: is no checkpoint of weights alone"):
        load_prior(file)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ema_model.model.final_conv.bias": torch.zeros(7)}, r"final_conv.bias is \(7,\), expected \(4,\)"),
        ({"ema_model.model.more": torch.zeros(7)}, "more is"),
        ({"ema_model.model.init_conv.weight": torch.zeros(7)}, "init_conv.weight"),
        ({"ema_model.model.downs.1.3.weight": torch.zeros(7)}, "downs.1.3.weight"),
        ({"ema_model.model.init_conv.weight": torch.zeros(0, 4, 7, 7)}, r"prior\.pt: holds no denoiser"),
        ({"ema_model.model.init_conv.weight": torch.zeros(3, 4, 7, 7)}, r"prior\.pt: .*multiple of 8"),
    ],
)
def test_checkpoints_that_do_not_fit_are_told_of(tmp_path, changes, complaint):
    published_file(tmp_path / "prior.pt", SMALL, **changes)
    with pytest.raises(PriorError, match=complaint):
        load_prior(tmp_path / "prior.pt")


def test_files_that_are_no_priors_are_told_of(tmp_path):
    with pytest.raises(PriorError, match="no such prior"):
        load_prior(tmp_path / "none.safetensors")
    file = tmp_path / "bad.safetensors"
    for content in (b"", b"nonsense" * 10, prior_bytes(Prior(replace(PriorSettings(SMALL), size=8), filled()))[:500]):
        file.write_bytes(content)
        with pytest.raises(PriorError, match="is no prior of taichi_nerf"):
            load_prior(file)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("denoiser", {"width": 10**6, "multipliers": [1], "channels": 4}, "larger than any"),
        ("schedule", "square", r"huge\.safetensors: .*square"),
        ("n_times", math.inf, r"huge\.safetensors: n_times: expected a whole number"),
        ("later", 1, r"huge\.safetensors: unknown: later; the file is of another version"),
    ],
)
def test_a_file_cannot_ask_for_what_there_is_not(tmp_path, name, value, complaint):
    file = tmp_path / "huge.safetensors"
    file.write_bytes(said_otherwise(lambda about: about.update({name: value})))
    with pytest.raises(ValueError, match=complaint):
        load_prior(file)


def said_otherwise(change):
    """A file of a prior whose settings were changed."""
    data = prior_bytes(Prior(PriorSettings(SMALL, size=8), filled()))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"]["prior"])
    change(about)
    header["__metadata__"]["prior"] = json.dumps(about)
    changed = json.dumps(header).encode()
    return len(changed).to_bytes(8, "little") + changed + data[8 + length :]


def test_a_prior_of_before_the_nearest_depth_could_be_chosen_has_that_of_then(tmp_path):
    file = tmp_path / "prior.safetensors"
    file.write_bytes(said_otherwise(lambda about: about.pop("nearest")))
    with pytest.warns(OlderSettings, match=r"prior\.safetensors: of an older version .* taken as nearest = 0\.2$"):
        assert load_prior(file).settings == PriorSettings(SMALL, size=8, nearest=0.2)


def test_score_is_minus_the_noise_over_its_level():
    prior = Prior(PriorSettings(SMALL, size=8), filled())
    x = torch.randn(2, 4, 8, 8)
    assert_close(prior.score(x, 99), -prior.noise_in(x, 99) / NoiseSchedule.of().noise[99].float())
