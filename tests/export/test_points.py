"""Point clouds from pictures whose geometry is known."""

import numpy as np
import pytest
import torch
import trimesh

from taichi_nerf.cameras import EQUIRECTANGULAR, OPENCV, ORTHOGRAPHIC, make_cameras
from taichi_nerf.export.files import ExportError
from taichi_nerf.export.points import ColoredPoints, colored_points, save_points
from taichi_nerf.scenes.ply import ply_bytes, read_ply
from taichi_nerf.scenes.scene_data import Similarity
from taichi_nerf.trajectories import look_at

RADIUS = 0.7


def ring(n=4, model=0, size=(40, 30)):
    at = np.linspace(0, 2 * np.pi, n, endpoint=False)
    centers = np.stack([2.5 * np.cos(at), 2.5 * np.sin(at), np.full(n, 0.4)], -1)
    lens = np.array([-0.1, 0.02, 0, 0, 0, 0, 0.01, -0.005]) if model == OPENCV else None
    intrinsics = {ORTHOGRAPHIC: (20, 20, 20, 15), EQUIRECTANGULAR: (40 / 2 / np.pi, 30 / np.pi, 20, 15)}.get(
        model, (50, 50, 20, 15)
    )
    return make_cameras(look_at(centers, np.zeros(3), np.array([0.0, 0, 1])), intrinsics, size, model, lens)


def ball(cameras):
    """Exact pictures of a ball whose color is its normal."""
    for i in range(len(cameras)):
        width, height = cameras.sizes[i]
        y, x = np.mgrid[0:height, 0:width] + 0.5
        origins, directions = cameras.rays(i, np.stack([x.ravel(), y.ravel()], -1))
        b, c = (origins * directions).sum(-1), (origins**2).sum(-1) - RADIUS**2
        hit = (b * b > c) & (b < 0)
        distance = -b - np.sqrt(np.maximum(b * b - c, 0))
        color = (origins + distance[:, None] * directions) / RADIUS / 2 + 0.5
        yield tuple(v.reshape(height, width, *v.shape[1:]) for v in (color, np.where(hit, distance, np.nan), hit.astype(float)))


@pytest.mark.parametrize("model", [0, OPENCV, EQUIRECTANGULAR, ORTHOGRAPHIC])
def test_points_of_a_ball_lie_on_it_and_have_the_color_of_their_place(model):
    cameras = ring(model=model)
    n_hit = sum(int(opacity.sum()) for *_, opacity in ball(cameras))
    points = colored_points(cameras, ball(cameras))
    assert len(points.positions) == n_hit > 50
    assert np.abs(np.linalg.norm(points.positions, axis=-1) - RADIUS).max() < 1e-9
    assert np.abs(points.colors - (points.positions / RADIUS / 2 + 0.5) * 255).max() <= 0.5 + 1e-9


def test_only_opaque_pixels_with_a_distance_become_points():
    cameras = ring(1, size=(3, 1))
    color, distance = torch.zeros(1, 3, 3), torch.tensor([[1.0, 2.0, 3.0]])
    assert len(colored_points(cameras, [(color, distance, torch.tensor([[0.5, 0.49, 1.0]]))]).positions) == 2
    assert len(colored_points(cameras, [(color, distance, torch.tensor([[0.5, 0.49, 1.0]]))], least_opacity=0.9).positions) == 1
    for nothing in (0.0, -1.0, torch.nan, torch.inf):
        distance[0, 1] = nothing
        assert len(colored_points(cameras, [(color, distance, torch.ones(1, 3))]).positions) == 2


@pytest.mark.parametrize("spacing", [0.03, 0.1, 0.5])
def test_thinned_clouds_have_one_point_a_cube_which_is_the_mean_of_those_in_it(spacing):
    cameras = ring()
    dense = colored_points(cameras, ball(cameras))
    thin = colored_points(cameras, ball(cameras), spacing)
    cubes = {}
    for position, color in zip(dense.positions, dense.colors, strict=True):
        cubes.setdefault(tuple(np.floor(position / spacing)), []).append(np.concatenate([position, color]))
    wanted = np.array([np.mean(cubes[cube], axis=0) for cube in sorted(cubes)])
    found = np.concatenate([thin.positions, thin.colors], -1)
    assert np.allclose(found[:, :3], wanted[:, :3], atol=1e-12)
    assert np.abs(found[:, 3:] - wanted[:, 3:]).max() <= 0.5 + 1e-9
    assert len({tuple(cube) for cube in np.floor(thin.positions / spacing)}) == len(thin.positions)


def test_pixels_between_an_object_and_what_is_behind_can_be_left_out():
    cameras = ring(1, size=(6, 1))
    distance = np.array([[1.0, 1.01, 2.0, 3.0, 3.01, np.nan]])
    picture = (np.zeros((1, 6, 3), np.uint8), distance, np.ones((1, 6)))
    kept = colored_points(cameras, [picture], largest_step=0.05).positions
    center = cameras.centers[0]
    assert np.allclose(np.linalg.norm(kept - center, axis=-1), [1.0, 3.01])


def test_points_go_back_to_the_files_coordinates():
    mapping = Similarity(0.2, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 2, 3]))
    cameras = ring()
    points = colored_points(cameras, ball(cameras), to_source=mapping.inverse())
    assert np.allclose(np.linalg.norm(mapping(points.positions), axis=-1), RADIUS)
    assert np.linalg.norm(points.positions - mapping.inverse()(np.zeros(3)), axis=-1).mean() == pytest.approx(RADIUS / 0.2)


def some_points(n=50, offset=0.0):
    generator = np.random.default_rng(0)
    return ColoredPoints(generator.normal(size=(n, 3)) + offset, generator.integers(0, 256, (n, 3)).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".PLY"])
def test_files_open_with_trimesh_with_the_same_points_and_colors(tmp_path, suffix):
    points = some_points()
    save_points(points, tmp_path / f"a{suffix}")
    loaded = trimesh.load(tmp_path / f"a{suffix}")
    cloud = loaded if isinstance(loaded, trimesh.PointCloud) else next(iter(loaded.geometry.values()))
    assert np.allclose(cloud.vertices, points.positions, atol=1e-6)
    assert (np.asarray(cloud.colors)[:, :3] == points.colors).all()
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_we_write_we_read(tmp_path, kind):
    points = some_points()
    (tmp_path / "a.ply").write_bytes(ply_bytes(points.positions.astype(kind), points.colors))
    positions, colors = read_ply(tmp_path / "a.ply")
    assert (positions == points.positions.astype(kind)).all()
    assert (colors == points.colors).all()


def test_coordinates_far_from_zero_keep_their_digits(tmp_path):
    points = some_points(offset=5e6)
    save_points(points, tmp_path / "a.ply")
    assert np.abs(read_ply(tmp_path / "a.ply")[0] - points.positions).max() < 1e-6


def test_what_cannot_be_written_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"a\.obj: an \.obj holds surfaces.*write \.ply or \.glb"):
        save_points(some_points(), tmp_path / "a.obj")
    with pytest.raises(ExportError, match=r"a\.xyz: expected a name that ends in \.ply or \.glb"):
        save_points(some_points(), tmp_path / "a.xyz")
    with pytest.raises(ExportError, match="no points to write"):
        save_points(some_points(0), tmp_path / "a.ply")
    cameras = ring()
    with pytest.raises(ValueError, match="there are 0 for 4 cameras"):
        colored_points(cameras, [])
    with pytest.raises(ValueError, match="more than the 3 cameras"):
        colored_points(cameras[:3], ball(cameras))
    with pytest.raises(ValueError, match="spacing: expected a positive length"):
        colored_points(cameras, ball(cameras), 0.0)
    with pytest.raises(ValueError, match="less than a millionth"):
        colored_points(cameras, ball(cameras), 1e-9)
    color, distance, opacity = next(ball(cameras))
    with pytest.raises(ValueError, match=r"view 0: distance: expected shape \(30, 40\), got \(29, 40\)"):
        colored_points(cameras, [(color, distance[1:], opacity)])
    assert not list(tmp_path.iterdir())
