"""PSNR in closed form, SSIM against scikit-image and a loop over windows, LPIPS against weights whose result is known."""

import math

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity
from torch import nn

from taichi_nerf import metrics
from taichi_nerf.metrics import TRUNKS, VARIANTS, Lpips, average_error, psnr, ssim
from taichi_nerf.weight_files import WeightsError

from real_data import data_folder


def pair(height=40, width=33, channels=3, noise=0.1, seed=0):
    """A smooth picture and a noisy one."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 4, width), indexing="ij")
    truth = torch.stack([0.5 + 0.4 * torch.sin(x * (c + 1) + y) for c in range(channels)], -1)
    return (truth + noise * torch.randn(truth.shape, generator=generator)).clamp(0, 1), truth


@pytest.mark.parametrize("error", [0.5, 0.1, 1e-3])
def test_psnr_of_a_constant_error_is_minus_twenty_log_of_it(error):
    truth = torch.zeros(5, 7, 3)
    assert psnr(truth + error, truth) == pytest.approx(-20 * math.log10(error), abs=1e-5)


def test_psnr_of_equal_pictures_is_infinite():
    assert psnr(torch.ones(2, 2, 3), torch.ones(2, 2, 3)) == math.inf


def test_metrics_take_pictures_of_a_training_and_refuse_bytes_and_batches():
    """Of bytes PSNR would be 48 dB too low. Warnings, as of a tensor with a history that becomes a number, are errors here."""
    image, truth = pair()
    plain = psnr(image, truth), ssim(image, truth)
    assert (psnr(image.requires_grad_() * 1, truth), ssim(image * 1, truth)) == plain
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match=r"image: expected colors from 0 to 1, got torch.uint8: of bytes, take / 255"):
            metric((255 * image).byte(), truth)
        with pytest.raises(ValueError, match=r"truth: expected colors from 0 to 1, got torch.uint8"):
            metric(image, (255 * truth).byte())
        with pytest.raises(ValueError, match=r"image: expected one picture, \[h, w, channels\], got shape \(1, "):
            metric(image[None], truth[None])


def test_psnr_with_a_mask_sees_only_its_pixels():
    image, truth = pair()
    mask = torch.zeros(40, 33, dtype=torch.bool)
    mask[5:20, 3:9] = True
    spoilt = torch.where(mask[..., None], image, torch.nan)
    assert psnr(spoilt, truth, mask) == pytest.approx(psnr(image[5:20, 3:9], truth[5:20, 3:9]), abs=1e-9)
    with pytest.raises(ValueError, match="mask: has no pixels"):
        psnr(image, truth, mask & ~mask)
    with pytest.raises(ValueError, match=r"mask: expected shape \(40, 33\)"):
        psnr(image, truth, mask.T)


def by_skimage(image, truth, variant):
    image, truth = image.double().numpy(), truth.double().numpy()
    if variant == "diffusionerf":
        image, truth = 2 * image - 1, 2 * truth - 1
    return structural_similarity(image, truth, channel_axis=-1, data_range=1.0 if variant == "skimage" else 2.0)


def by_loops(image, truth):
    """tf.image.ssim, window by window."""
    at = np.arange(11) - 5
    weights = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for c in range(image.shape[2]):
        for i in range(image.shape[0] - 10):
            for j in range(image.shape[1] - 10):
                x, y = (each[i : i + 11, j : j + 11, c].double().numpy() for each in (image, truth))
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                vxy = (weights * (x - mx) * (y - my)).sum()
                values.append((2 * mx * my + 0.01**2) * (2 * vxy + 0.03**2) / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2)))
    return np.mean(values)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("variant", ["skimage", "regnerf", "diffusionerf"])
def test_ssim_is_that_of_scikit_image(variant, channels):
    for noise in (0.02, 0.3):
        image, truth = pair(channels=channels, noise=noise)
        assert ssim(image, truth, variant) == pytest.approx(by_skimage(image, truth, variant), abs=1e-12)


def test_gaussian_ssim_is_a_loop_over_windows():
    image, truth = pair(19, 23)
    assert ssim(image, truth, "gaussian") == pytest.approx(by_loops(image, truth), abs=1e-12)


def test_gaussian_ssim_is_scikit_images_with_wangs_parameters():
    image, truth = pair()
    found = structural_similarity(
        image.double().numpy(),
        truth.double().numpy(),
        channel_axis=-1,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(image, truth, "gaussian") == pytest.approx(found, abs=1e-12)


def test_ssim_of_a_photo_is_that_of_scikit_image():
    scene = data_folder("chair_200")
    found = sorted(scene.rglob("*.png"))[0]
    truth = torch.from_numpy(imageio.imread(found)[..., :3] / 255.0)
    image = (truth + 0.1 * torch.sin(torch.arange(truth.numel()).view(truth.shape))).clamp(0, 1)
    for variant in ("skimage", "regnerf", "diffusionerf"):
        assert ssim(image, truth, variant) == pytest.approx(by_skimage(image, truth, variant), abs=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ssim_of_equal_pictures_is_one_and_the_order_does_not_matter(variant):
    image, truth = pair()
    assert ssim(truth, truth, variant) == pytest.approx(1.0, abs=1e-12)
    assert ssim(image, truth, variant) == pytest.approx(ssim(truth, image, variant), abs=1e-12)


def test_variants_differ_so_a_figure_has_to_name_its_own():
    values = [ssim(*pair(), variant) for variant in VARIANTS]
    assert len({round(value, 3) for value in values}) == 4


def test_ssim_refuses_what_it_cannot_measure():
    image, truth = pair(10, 10)
    with pytest.raises(ValueError, match="expected one of skimage, regnerf"):
        ssim(image, truth, "psnr")
    with pytest.raises(ValueError, match="11 x 11 pixels"):
        ssim(image, truth, "gaussian")
    with pytest.raises(ValueError, match="the truth's shape"):
        ssim(image[1:], truth)


@pytest.mark.parametrize(
    ("rows", "published"),
    [
        ([(33.09, 0.961, 0.043)], 0.0161),  # one scale
        ([(32.629, 0.9579, 0.0469), (34.336, 0.9703, 0.0260), (35.471, 0.9786, 0.0168), (35.602, 0.9833, 0.0120)], 0.0114),
    ],
)
def test_the_average_error_of_mip_nerfs_figures_is_the_published_one(rows, published):
    assert sum(average_error(*row) for row in rows) / len(rows) == pytest.approx(published, abs=6e-5)


def test_the_average_error_of_equal_pictures_is_zero():
    assert average_error(math.inf, 1.0, 0.0) == 0


# --- LPIPS: the layout of the trunks as torchvision builds them, with weights made here ----------------------------------

ALEX = [
    nn.Conv2d(3, 64, 11, 4, 2),
    nn.ReLU(),
    nn.MaxPool2d(3, 2),
    nn.Conv2d(64, 192, 5, padding=2),
    nn.ReLU(),
    nn.MaxPool2d(3, 2),
    nn.Conv2d(192, 384, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(384, 256, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(256, 256, 3, padding=1),
    nn.ReLU(),
]


def vgg():
    layers, n_in = [], 3
    for n_out in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512):
        if n_out == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            n_in = n_out
    return layers


BUILT = {"alex": (ALEX, (2, 5, 8, 10, 12)), "vgg": (vgg(), (4, 9, 16, 23, 30))}
NAMES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def states(network, fill):
    """State dicts of trunk and linear layers; `fill(shape)` makes each tensor."""
    layers, _ = BUILT[network]
    trunk = {f"features.{name}": fill(value.shape) for name, value in nn.Sequential(*layers).state_dict().items()}
    trunk["classifier.6.bias"] = torch.zeros(1000)  # torchvision's files have more than LPIPS uses
    widths = (64, 192, 384, 256, 256) if network == "alex" else (64, 128, 256, 512, 512)
    return trunk, {f"lin{i}.model.1.weight": fill((1, n, 1, 1)).abs() for i, n in enumerate(widths)}


def random_states(network):
    generator = torch.Generator().manual_seed(3)
    return states(network, lambda shape: torch.randn(shape, generator=generator) * (2 / max(1, math.prod(shape[1:]))) ** 0.5)


def write(folder, network, trunk, linear):
    torch.save(trunk, folder / NAMES[network])
    torch.save(linear, folder / f"{network}.pth")
    return folder


def by_modules(network, trunk, linear, image, truth):
    layers, ends = BUILT[network]
    body = nn.Sequential(*layers)
    body.load_state_dict({k.removeprefix("features."): v for k, v in trunk.items() if k.startswith("features.")})
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = (torch.stack([image, truth]) * 2 - 1 - shift) / scale
    x, total, start = x.permute(0, 3, 1, 2), 0.0, 0
    with torch.no_grad():
        for i, end in enumerate(ends):
            x = body[start:end](x)
            unit = nn.functional.normalize(x, dim=1)
            weighted = (unit[0] - unit[1]) ** 2 * linear[f"lin{i}.model.1.weight"][0]
            total, start = total + float(weighted.sum(0).mean()), end
    return total


@pytest.mark.parametrize("network", TRUNKS)
def test_lpips_is_the_trunk_of_torchvision_with_weighted_differences(network, tmp_path):
    trunk, linear = random_states(network)
    lpips = Lpips(write(tmp_path, network, trunk, linear))
    assert lpips.network == network
    image, truth = pair(64, 70, noise=0.3)
    assert lpips(image, truth) == pytest.approx(by_modules(network, trunk, linear, image, truth), rel=1e-4)
    assert lpips(image, truth) > 1e-4
    assert lpips(truth, truth) == 0


def test_lpips_of_two_plain_colors_is_what_a_hand_computes(tmp_path):
    """One feature is the red of a pixel, a second is 1; every other weight is 0."""
    trunk, linear = states("alex", torch.zeros)
    trunk["features.0.weight"][0, 0, 5, 5] = 1
    trunk["features.0.bias"][1] = 1
    linear["lin0.model.1.weight"][0, :2, 0, 0] = torch.tensor([2.0, 3.0])
    units = []
    for red in (0.9, 0.6):
        feature = (2 * red - 1 + 0.030) / 0.458
        units.append(np.array([feature, 1]) / math.hypot(feature, 1))
    wanted = float(((units[0] - units[1]) ** 2 * [2, 3]).sum())
    colors = [torch.tensor([red, 0.3, 0.8]).expand(32, 40, 3) for red in (0.9, 0.6)]
    assert Lpips(write(tmp_path, "alex", trunk, linear))(*colors) == pytest.approx(wanted, rel=1e-5)


def test_lpips_reads_safetensors_and_whole_models_in_one_file(tmp_path):
    trunk, linear = random_states("alex")
    image, truth = pair(40, 40)
    wanted = Lpips(write(tmp_path, "alex", trunk, linear))(image, truth)
    (tmp_path / "both").mkdir()
    save_file(trunk, tmp_path / "both/alexnet.safetensors")
    save_file(linear, tmp_path / "both/alex.safetensors")
    assert Lpips(tmp_path / "both")(image, truth) == wanted
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    whole = {
        f"net.slice{slices[int(name.split('.')[1])]}.{name.removeprefix('features.')}": value
        for name, value in trunk.items()
        if name.startswith("features")
    }
    torch.save(whole | linear, tmp_path / "whole.pth")
    assert Lpips(tmp_path / "whole.pth")(image, truth) == wanted


def test_without_weights_there_is_no_number(tmp_path):
    _, linear = states("alex", torch.zeros)
    torch.save(linear, tmp_path / "alex.pth")
    for place in (tmp_path / "nowhere", tmp_path, tmp_path / "alex.pth"):
        with pytest.raises(WeightsError, match=r"alexnet-owt.*https://.*https://") as caught:
            Lpips(place)
        assert str(caught.value).startswith(str(place))
        assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return print, ("never",)


def test_weights_of_another_shape_or_kind_are_refused(tmp_path, capsys):
    trunk, linear = states("alex", torch.zeros)
    trunk["features.3.weight"] = torch.zeros(192, 64, 3, 3)
    with pytest.raises(WeightsError, match=r"features.3.weight: expected shape \(192, 64, 5, 5\), got \(192, 64, 3, 3\)"):
        Lpips(write(tmp_path, "alex", trunk, linear))
    with pytest.raises(WeightsError, match="lacks weights of vgg"):
        Lpips(tmp_path, "vgg")
    with pytest.raises(ValueError, match="expected one of alex, vgg, got 'squeeze'"):
        Lpips(tmp_path, "squeeze")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    for name in ("evil.pth", "text.safetensors", "other.pth"):
        with pytest.raises(WeightsError, match="expected weights of LPIPS") as caught:
            Lpips(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
    assert "never" not in capsys.readouterr().out


def test_lpips_refuses_pictures_its_last_layer_cannot_see(tmp_path):
    lpips = Lpips(write(tmp_path, "alex", *states("alex", torch.zeros)))
    with pytest.raises(ValueError, match="32 x 32 pixels"):
        lpips(*pair(31, 40))
    with pytest.raises(ValueError, match="3 channels"):
        lpips(*pair(40, 40, 1))


@pytest.mark.parametrize("network", TRUNKS)
@pytest.mark.parametrize("height", [401, 384])
def test_lpips_of_a_large_picture_is_taken_in_parts(network, height, tmp_path, monkeypatch):
    lpips = Lpips(write(tmp_path, network, *random_states(network)))
    image, truth = pair(height, 40, noise=0.3)
    image[: height // 2] = truth[: height // 2] / 2  # parts differ from each other
    at_once, heights = lpips(image, truth), []
    features = lpips._features
    monkeypatch.setattr(lpips, "_features", lambda part: heights.append(len(part)) or features(part))
    monkeypatch.setattr(metrics, "AT_ONCE", 40 * 50)
    assert lpips(image, truth) == pytest.approx(at_once, rel=1e-5)
    assert max(heights) <= 48 + 2 * metrics.REACH < height
    assert len(heights) == 2 * -(-height // 48)


@pytest.mark.parametrize("variant", metrics.VARIANTS)
def test_ssim_and_psnr_of_a_large_picture_are_taken_in_parts(variant, monkeypatch):
    image, truth = pair(90, 50, noise=0.2)
    mask = image[..., 0] > image[..., 1]
    at_once = ssim(image, truth, variant), psnr(image, truth), psnr(image, truth, mask)
    monkeypatch.setattr(metrics, "AT_ONCE", 50 * 16)
    assert (ssim(image, truth, variant), psnr(image, truth), psnr(image, truth, mask)) == pytest.approx(at_once, rel=1e-12)
    seen, double = [], torch.Tensor.double
    monkeypatch.setattr(torch.Tensor, "double", lambda x: seen.append(x.numel()) or double(x))
    ssim(image, truth, variant)
    psnr(image, truth)
    assert max(seen) <= 50 * (16 + 10) * 3
