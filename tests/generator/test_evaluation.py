"""Figures against closed forms and brute force, and features that a set teaches."""

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from taichi_nerf.generator.evaluation import report
from taichi_nerf.generator.evaluation.ablation import trained_with
from taichi_nerf.generator.evaluation.distances import frechet_distance, kernel_difference, kernel_distance
from taichi_nerf.generator.evaluation.feature_files import load_features, save_features
from taichi_nerf.generator.evaluation.features import FeatureNetwork, FeatureSettings, contrast, train_features
from taichi_nerf.generator.evaluation.published_features import FeatureFileError, embedder
from taichi_nerf.generator.evaluation.report import Instruments, correlation, figures, slope
from taichi_nerf.generator.evaluation.turned import Both, Views
from taichi_nerf.generator.image_set import ImageSet, ImageSetError, area_weights, open_image_set, save_image_set


def test_frechet_distance_of_a_shift_is_its_square_and_of_equal_sets_nothing():
    x = np.random.default_rng(0).normal(size=(500, 6))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 2) == pytest.approx(24, rel=1e-6)


def test_frechet_distance_of_scaled_sets_is_that_of_their_deviations():
    """Commuting covariances: Σ (σ − σ')²."""
    x = np.random.default_rng(0).normal(size=(500, 3))
    x -= x.mean(0)
    x = np.linalg.qr(x)[0] * np.sqrt(499)  # uncorrelated, of variance one
    assert frechet_distance(x * [1, 2, 3], x * [2, 2, 5]) == pytest.approx(1 + 0 + 4, rel=1e-6)


def test_frechet_distance_agrees_with_the_square_root_of_the_product():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(60, 4)) @ random.normal(size=(4, 4)), random.normal(size=(80, 4)) + 1
    c, d = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values = np.linalg.eigvals(c @ d)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c + d) - 2 * np.sqrt(values.astype(complex)).sum().real
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_the_ablation_trains_as_the_note_says_and_without_a_loss_that_an_older_note_lacks():
    note = {"steps": 7, "latent": 0.5, "keep": 0.25, "losses": {"warp": 0.1}, "seconds": 3}
    training, settings = trained_with(note)
    assert (training.steps, training.latent, training.turn, training.natural, settings.keep) == (7, 0.5, 0.0, 0.0, 0.25)
    training = trained_with(note | {"turn": 2.0, "natural": 0.3})[0]
    assert (training.turn, training.natural) == (2.0, 0.3)


def test_kernel_distance_is_the_unbiased_estimate():
    random = np.random.default_rng(2)
    x, y = random.normal(size=(7, 3)), random.normal(size=(7, 3)) + 0.5
    k = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
    within = sum(k(s[i], s[j]) for s in (x, y) for i in range(7) for j in range(7) if i != j) / 42
    across = sum(k(a, b) for a in x for b in y) / 49
    assert kernel_distance(x, y, n_subsets=3) == pytest.approx(within - 2 * across, rel=1e-9)
    same = [kernel_distance(*random.normal(size=(2, 50, 3)), n_subsets=1) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5


def test_kernel_difference_is_the_sum_over_pairs_of_different_subjects():
    random = np.random.default_rng(3)
    a, b, real = random.normal(size=(4, 2, 3)), random.normal(size=(4, 2, 3)) + 0.3, random.normal(size=(5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731

    def distance(views):  # but for what the real images have among themselves
        pairs = [k(x, y) for i in range(4) for j in range(4) if i != j for x in views[i] for y in views[j]]
        return np.mean(pairs) - 2 * np.mean([k(x, r) for views_of in views for x in views_of for r in real])

    assert kernel_difference(a, b, real)[0] == pytest.approx(distance(b) - distance(a), rel=1e-9)


def test_kernel_difference_does_not_mind_that_views_of_a_subject_agree_and_knows_its_own_chance():
    """Two sets of one distribution, in one of which a subject's views are all the same: neither is farther from it."""
    random = np.random.default_rng(4)
    found, plain = [], []
    for _ in range(40):
        various, real = random.normal(size=(30, 6, 4)), random.normal(size=(100, 4))
        alike = np.repeat(random.normal(size=(30, 1, 4)), 6, axis=1)
        found.append(kernel_difference(various, alike, real))
        plain.append(kernel_distance(alike.reshape(-1, 4), real, 3) - kernel_distance(various.reshape(-1, 4), real, 3))
    values, deviations = np.array(found).T
    assert abs(values.mean()) < 3 * values.std() / 40**0.5
    assert 0.6 < np.median(deviations) / values.std() < 1.6
    assert np.mean(plain) > 5 * np.std(plain) / 40**0.5
    value, deviation = kernel_difference(various, various + 1, real)
    assert value > 5 * deviation


def test_contrast_is_cross_entropy_over_all_others():
    vectors = torch.nn.functional.normalize(torch.randn(6, 5), dim=1)
    expected = 0.0
    for i in range(6):
        others = [torch.exp(vectors[i] @ vectors[j] / 0.1) for j in range(6) if j != i]
        expected -= torch.log(torch.exp(vectors[i] @ vectors[(i + 3) % 6] / 0.1) / sum(others)) / 6
    assert contrast(vectors).item() == pytest.approx(float(expected), rel=1e-4)


def test_features_of_a_set_tell_its_objects_apart_and_know_its_yaws(tmp_path):
    """Colored bars that stand further right the more the camera turned."""
    random = np.random.default_rng(3)
    images, groups, yaws = np.full((160, 32, 32, 3), 255, np.uint8), np.repeat(np.arange(20), 8), random.uniform(-1, 1, 160)
    colors = random.integers(0, 220, (20, 3))
    for image, group, yaw in zip(images, groups, yaws, strict=True):
        at = int(16 + 9 * yaw)
        image[:, at - 4 : at + 4] = colors[group]
    learned = ImageSet(images, groups, yaws.astype(np.float32))
    torch.manual_seed(0)
    network = train_features(learned, FeatureSettings(size=32, width=8), steps=120, batch=16)
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = network.yaws(pictures)
    assert torch.corrcoef(torch.stack([found, torch.from_numpy(yaws).float()]))[0, 1] > 0.9
    identity = network.identity(pictures)
    alike = (identity @ identity.T)[np.equal.outer(groups, groups)].mean()
    assert alike > (identity @ identity.T).mean() + 0.3
    save_features(tmp_path / "f.safetensors", network)
    assert torch.equal(load_features(tmp_path / "f.safetensors").features(pictures), network.features(pictures))


def test_features_take_pictures_to_where_they_are_themselves():
    """Pictures that were gathered stay in the host's memory while the network may be on a GPU; `meta` is another device, too."""
    network = FeatureNetwork(FeatureSettings(16, 8)).to("meta")
    pictures = torch.zeros(2, 3, 16, 16)
    for told, shape in ((network.features, (2, 128)), (network.identity, (2, 64)), (network.yaws, (2,))):
        assert (told(pictures).device.type, told(pictures).shape) == ("meta", shape)


def views(shift=0.0, drift=0.0):
    """Four subjects at five places, whose mean color is the angle, and whose identity drifts."""
    steps = torch.linspace(-2, 2, 5)
    images = torch.zeros(4, 5, 3, 16, 16)
    images[:, :, 0] = steps.view(1, 5, 1, 1) * 0.1
    images[:, :, 1] = torch.linspace(-0.5, 0.5, 4).view(4, 1, 1, 1) + drift * steps.abs().view(1, 5, 1, 1)
    return Views(steps, images, torch.full((4, 5), 0.1 + shift), 2 * steps.expand(4, 5) / 10)


def test_figures_are_means_over_turned_images_within_a_range():
    tools = Instruments(
        "plain",
        features=lambda x: x.mean((2, 3)),
        identity=lambda x: torch.cat([x[:, 1:].mean((2, 3)), torch.ones(len(x), 1)], 1),
        yaws=lambda x: torch.deg2rad(x[:, 0].mean((1, 2)) * 150),
        real=np.full((20, 16, 16, 3), 128, np.uint8),
    )
    found = figures(Both(views(), views(-0.05, 0.2)), tools)
    plain, refined = found["gan_space"], found["refined"]
    assert plain["warp_error"] == pytest.approx(0.1)
    assert refined["warp_error"] == pytest.approx(0.05)
    assert plain["identity"] == pytest.approx(1.0)
    assert refined["identity"] < 0.999
    assert plain["yaw_span"] == pytest.approx(60, rel=1e-3)
    assert found["ranges"]["20"]["gan_space"]["n_images"] == 8
    assert found["ranges"]["20"]["gan_space"]["yaw_span"] == pytest.approx(30, rel=1e-3)
    assert found["yaw_correlation"] == pytest.approx(1.0)
    assert found["pose_correlation"] == pytest.approx(1.0)
    assert found["pose_preservation"] == pytest.approx(1.0)
    assert plain["fid"] > 0
    assert found["missing"] == {}


def test_distances_within_a_range_are_to_the_real_images_within_it():
    """Real images whose first color is their yaw, as seen by a camera that takes what looks 0.3 aside for facing it."""
    random = np.random.default_rng(0)
    real = random.integers(0, 256, (300, 16, 16, 3)).astype(np.uint8)
    real[..., 0] = random.integers(60, 220, (300, 1, 1))
    tools = Instruments("plain", features=lambda x: x.mean((2, 3)), yaws=lambda x: 2.5 * x[:, 0].mean((1, 2)), real=real)
    turned = views()
    turned.images[:, :, 0] += 0.3
    turned.images[:, :, 1] += 0.05 * torch.randn(4, 5, 1, 1)
    both = Both(turned, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "FEWEST", 2)
        found = figures(both, tools)["ranges"]
    features = real.mean((1, 2)) / 127.5 - 1
    aside = np.degrees(2.5 * (features[:, 0] - 0.3))
    made = turned.images.mean((3, 4)).double().numpy()
    angles = np.degrees(2.5 * (made[..., 0] - 0.3))
    for name, limit in (("20", 20), ("40", 40), ("full", 360)):
        within = (np.abs(angles) <= limit) & (np.arange(5) != 2)
        expected = frechet_distance(made[within], features[np.abs(aside) <= limit])
        assert found[name]["gan_space"]["fid"] == pytest.approx(expected, rel=1e-3)
    assert (np.abs(aside) <= 20).sum() < 100 < (np.abs(aside) <= 360).sum()


def test_what_cannot_be_measured_is_null_and_says_what_is_missing():
    found = figures(Both(views(), None), Instruments())
    assert found["gan_space"]["fid"] is None
    assert found["gan_space"]["identity"] is None
    assert found["gan_space"]["ssim"] > 0
    assert "inception-2015-12-05.pt" in found["missing"]["fid"]
    assert "refined" not in found


def test_correlation_and_slope():
    a = torch.tensor([1.0, 2.0, 4.0])
    assert correlation(a, 3 - 2 * a) == pytest.approx(-1)
    assert slope(a, 0.8 * a) == pytest.approx(0.8)
    assert correlation(a, torch.ones(3)) is None


def test_a_file_that_is_no_network_is_told_in_one_line(tmp_path):
    (tmp_path / "arcface.pt").write_bytes(b"hello")
    with pytest.raises(FeatureFileError, match=r"arcface\.pt: is no TorchScript file"):
        embedder(tmp_path / "arcface.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("body", ['torch.save(x, "{mark}")', 'x = torch.from_file("{mark}", False, 1)', "x = 2 * x"])
def test_a_network_that_reads_or_writes_files_is_refused(tmp_path, body):
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    mark, file = tmp_path / "mark", tmp_path / "net.pt"
    network = torch.jit.script(Network())
    network.define(f"def told(self, x: Tensor) -> Tensor:\n    {body.format(mark=mark)}\n    return x\n")
    torch.jit.save(network, str(file))
    if body == "x = 2 * x":
        assert embedder(file)(torch.ones(1, 4)).tolist() == [[0.5] * 4]
        return
    with pytest.raises(FeatureFileError, match="its program reads or writes files; nothing was run"):
        embedder(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": np.zeros((0, 16, 16, 3), np.uint8)}, "images: holds none"),
        (
            {"images": np.zeros((2, 16, 16, 3), np.uint8), "yaws": np.array(["left", "right"])},
            "yaws: expected 2 numbers, got <U5",
        ),
    ],
)
def test_sets_that_nothing_can_be_learned_from_are_refused(tmp_path, arrays, told):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ImageSetError, match=rf"set\.npz: {told}"):
        open_image_set(tmp_path / "set.npz")


def test_reducing_pictures_keeps_their_mean():
    weights = area_weights(10, 4)
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights.sum(0), 0.4)
    assert weights[0].tolist() == pytest.approx([0.4, 0.4, 0.2, *[0] * 7])


def test_pictures_of_a_folder_are_upright_and_lie_over_white(tmp_path):
    """A phone stores a photograph as the sensor lies, and says in EXIF how it is to be turned."""
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 200  # the sky
    turned = Image.Exif()
    turned[274] = 6  # a quarter to the right
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=turned)
    clear = np.dstack([upright, np.where(upright[..., 0], 255, 0).astype(np.uint8)])
    Image.fromarray(clear).save(tmp_path / "b.png")
    Image.fromarray(upright[..., 0].astype(np.uint16) * 256).save(tmp_path / "c.png")
    found = open_image_set(tmp_path).images
    assert np.array_equal(found[0], upright)
    assert np.array_equal(found[1], np.where(upright, 200, 255))
    assert np.array_equal(found[2], upright)
    (tmp_path / "d.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"d\.png: is no readable image"):
        open_image_set(tmp_path)


def test_a_set_of_photos_never_holds_two_of_them(tmp_path):
    for i in range(40):
        Image.new("RGB", (400, 300), (i, 0, 0)).save(tmp_path / f"{i}.png")
    told = []
    tracemalloc.start()
    found = open_image_set(tmp_path, 16, lambda done, text: told.append(text))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.images[:, 0, 0, 0].tolist() == list(range(40))
    assert peak < 40 * 400 * 300 * 3 * 0.7  # one takes up to 8 MB on its way, all of them 14
    assert told[-1] == "picture 40 of 40"
    assert open_image_set(tmp_path).size == 256


def test_of_a_large_set_of_real_images_only_some_are_floats(monkeypatch):
    real = np.random.default_rng(0).integers(0, 255, (600, 16, 16, 3)).astype(np.uint8)
    seen = []

    def features(images):
        seen.append(len(images))
        return images.mean((2, 3))

    floats = []
    as_floats = report.as_floats
    monkeypatch.setattr(report, "as_floats", lambda images: floats.append(len(images)) or as_floats(images))
    tools = Instruments("means", features, real=real)
    assert seen == floats == [report.CHUNK] * 4 + [600 - 4 * report.CHUNK]
    wanted = torch.from_numpy(real).double().mean((1, 2)) / 127.5 - 1
    assert torch.allclose(tools.real.double(), wanted, atol=1e-5)


def test_sets_come_back_and_turntables_tell_objects_and_yaws(tmp_path):
    import imageio.v3 as imageio

    made = ImageSet(
        np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8), np.arange(3), np.zeros(3, np.float32)
    )
    save_image_set(tmp_path / "s.npz", made)
    again = open_image_set(tmp_path / "s.npz")
    assert np.array_equal(again.images, made.images)
    assert np.array_equal(again.groups, made.groups)
    table = tmp_path / "table"
    table.mkdir()
    for thing in (1, 2):
        for view in range(8):
            imageio.imwrite(table / f"obj{thing}__{view}.png", np.full((20, 24), 10 * view, np.uint8))
    found = open_image_set(table, 8)
    assert found.images.shape == (16, 8, 8, 3)
    assert sorted(set(found.groups)) == [0, 1]
    assert np.degrees(found.yaws.max()) == pytest.approx(35)
    (tmp_path / "bad.npz").write_bytes(b"x")
    with pytest.raises(ImageSetError, match=r"bad\.npz"):
        open_image_set(tmp_path / "bad.npz")
    assert FeatureNetwork(FeatureSettings(8, 8)).features(torch.zeros(1, 3, 8, 8)).shape == (1, 128)
