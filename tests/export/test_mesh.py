"""Meshes of densities whose surface is known in closed form, and their files."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from taichi_nerf.export import marching
from taichi_nerf.export import mesh as mesh_module
from taichi_nerf.export.files import ExportError
from taichi_nerf.export.mesh import choose_threshold, extract_mesh, keep_parts, outward, save_mesh
from taichi_nerf.scenes.scene_data import Similarity

CUBE = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
BALL, RING, TUBE = 0.6, 0.6, 0.25


def outside_ball(p):
    """Signed distances [n], negative inside."""
    return p.norm(dim=-1) - BALL


def outside_torus(p):
    return torch.stack([p[:, :2].norm(dim=-1) - RING, p[:, 2]], -1).norm(dim=-1) - TUBE


def on_ball(n, generator):
    p = generator.normal(size=(n, 3))
    return BALL * p / np.linalg.norm(p, axis=-1, keepdims=True)


def on_torus(n, generator):
    """Evenly by area: a tube's angle is taken as often as its ring is long there."""
    around, tube = generator.uniform(0, 2 * np.pi, (2, 4 * n))
    kept = generator.uniform(0, RING + TUBE, 4 * n) < RING + TUBE * np.cos(tube)
    around, tube = around[kept][:n], tube[kept][:n]
    radius = RING + TUBE * np.cos(tube)
    return np.stack([radius * np.cos(around), radius * np.sin(around), TUBE * np.sin(tube)], -1)


SHAPES = {
    "ball": (outside_ball, on_ball, 4 / 3 * np.pi * BALL**3),
    "torus": (outside_torus, on_torus, 2 * np.pi**2 * RING * TUBE**2),
}
STEEPNESS = {"soft": 20.0, "steep": 300.0}


def density_of(outside, steepness=100.0, most=200.0):
    """Half of `most` on the surface."""
    return lambda p: most * torch.sigmoid(-steepness * outside(p))


def by_direction(positions, directions):
    return directions / 2 + 0.5


def extract(density, color=by_direction, box=CUBE, resolution=64, threshold=100.0, **options):
    return extract_mesh(density, color, box, resolution, threshold, **options)


def chamfer(mesh, outside, on_surface):
    """Mean distance from the mesh to the surface by the closed form, and from the surface to the mesh by dense sampling."""
    generator = np.random.default_rng(0)
    sampled = trimesh.sample.sample_surface(mesh, 40_000, seed=1)[0]
    there = np.abs(outside(torch.from_numpy(np.asarray(mesh.vertices))).numpy()).mean()
    back = cKDTree(sampled).query(on_surface(2000, generator))[0].mean()
    return there, back


@pytest.mark.parametrize("steepness", STEEPNESS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_surface_is_the_one_in_closed_form(shape, steepness):
    outside, on_surface, volume = SHAPES[shape]
    mesh = extract(density_of(outside, STEEPNESS[steepness]))
    there, back = chamfer(mesh, outside, on_surface)
    assert there < 1e-6  # 2e-8 to 5e-8 measured; without halving edges 1e-4 (soft) and 2.6e-3 (steep), at cells of 0.032
    assert back < 0.007  # 0.0053 and 0.0061: the gaps between 40,000 samples on areas of 4.5 and 5.9
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(volume, rel=0.01)  # positive, so faces look outward
    assert mesh.euler_number == (2 if shape == "ball" else 0)


def test_halving_edges_brings_vertices_nearer_to_a_steep_surface():
    density = density_of(outside_ball, 400.0)
    errors = [chamfer(extract(density, n_refinements=n), outside_ball, on_ball)[0] for n in (0, 2, 4, 8)]
    assert errors[0] > 1e-3
    assert all(after < before / 3 for before, after in pairwise(errors))
    assert errors[-1] < 1e-7


def test_without_halving_each_vertex_is_where_density_along_its_edge_interpolates_to_the_threshold():
    density = density_of(outside_torus, 5.0)
    mesh = extract(density, resolution=21, n_refinements=0)
    at = (np.asarray(mesh.vertices) + 1) * 10
    low, high = np.floor(at + 1e-9), np.ceil(at - 1e-9)
    ends = [density(torch.from_numpy(node / 10 - 1)).numpy() for node in (low, high)]
    along = np.abs(at - low).max(-1)
    assert ((high - low).sum(-1) == 1).all()
    assert np.abs(ends[0] + along * (ends[1] - ends[0]) - 100).max() < 1e-3


def table_density(values):
    """Values at the nodes of a grid over the cube."""
    n = values.shape[0]

    def density(p):
        x, y, z = ((p + 1) * (n - 1) / 2).round().long().T
        return values[x, y, z]

    return density


@pytest.mark.parametrize("levels", [2, 1000])
@pytest.mark.parametrize("slab", [2**21, 1])
def test_any_density_gives_a_closed_surface_whatever_the_slabs(levels, slab, monkeypatch, generator):
    """Noise at every node has all the ambiguous cubes there are; the surface divides dense from empty nodes."""
    values = torch.randint(0, levels, (12, 12, 12), generator=generator).float() * 2 / (levels - 1) + 1e-3
    whole = extract(table_density(values), resolution=12, threshold=1.0, n_refinements=0, smallest_part=0)
    monkeypatch.setattr(marching, "SLAB", slab)
    mesh = extract(table_density(values), resolution=12, threshold=1.0, n_refinements=0, smallest_part=0)
    assert (mesh.vertices == whole.vertices).all()
    assert len(mesh.faces) == len(whole.faces)
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert np.abs(mesh.vertices).max() <= 1


def test_what_reaches_the_box_is_closed_by_it():
    mesh = extract(lambda p: torch.full((len(p),), 200.0), box=torch.tensor([[-1.0, -1, 0], [1, 0.5, 3]]), resolution=13)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(2 * 1.5 * 3)
    assert mesh.area == pytest.approx(2 * (2 * 1.5 + 2 * 3 + 1.5 * 3))
    assert mesh.bounds.tolist() == [[-1, -1, 0], [1, 0.5, 3]]


def test_half_a_ball_on_the_floor_is_closed_by_the_floor():
    mesh = extract(density_of(outside_ball), box=torch.tensor([[-1.0, -1, 0], [1, 1, 1]]))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(2 / 3 * np.pi * BALL**3, rel=0.01)
    assert mesh.bounds[0, 2] == 0


def test_colors_are_seen_from_outside_along_the_normal_at_the_vertex():
    places = []

    def color(positions, directions):
        places.append(positions)
        assert torch.allclose(directions.norm(dim=-1), torch.ones(len(directions)))
        return directions / 2 + 0.5

    mesh = extract(density_of(outside_ball), color, chunk=1000)
    inward = -np.asarray(mesh.vertices) / BALL
    assert np.abs(mesh.visual.vertex_colors[:, :3] - (inward / 2 + 0.5) * 255).max() < 8  # 1.8 degrees and rounding
    assert (mesh.visual.vertex_colors[:, 3] == 255).all()
    assert np.allclose(torch.cat(places).numpy(), mesh.vertices, atol=1e-6)
    assert (outward(mesh.vertices, mesh.faces) * -inward).sum(-1).min() > 0.999


def two_balls(p):
    return torch.minimum((p - 0.4).norm(dim=-1) - 0.5, (p + 0.7).norm(dim=-1) - 0.2)


def test_small_parts_are_left_out_by_their_area():
    """Radii 0.5 and 0.2: areas as 25 to 4."""
    density = density_of(two_balls)
    assert extract(density).body_count == 2
    assert extract(density, smallest_part=0.15).body_count == 2
    alone = extract(density, smallest_part=0.17)
    assert alone.body_count == 1
    assert alone.is_watertight
    assert alone.volume == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.01)
    assert extract(density, smallest_part=1).body_count == 1
    with pytest.raises(ValueError, match="smallest_part: expected a fraction"):
        keep_parts(alone.vertices, alone.faces, 2)


def test_a_similarity_brings_the_mesh_to_the_files_coordinates():
    to_scene = Similarity(0.2, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 2, 3]))
    scene, source = (extract(density_of(outside_torus), to_source=mapping) for mapping in (None, to_scene.inverse()))
    assert np.allclose(to_scene(np.asarray(source.vertices)), scene.vertices)
    assert (source.faces == scene.faces).all()
    assert source.volume == pytest.approx(scene.volume / 0.2**3)


def test_the_chosen_threshold_hides_half_within_a_hundred_and_twenty_eighth():
    """Of the longest side, here 2: exp(-σ / 64) = 1 / 2. It does not depend on how much of the box is full."""
    for radius in (0.2, 0.9):
        density = density_of(lambda p, radius=radius: p.norm(dim=-1) - radius, 200.0, 5000.0)
        assert choose_threshold(density, CUBE) == pytest.approx(64 * np.log(2))
    assert choose_threshold(lambda p: 0 * p[:, 0], CUBE) == pytest.approx(64 * np.log(2))


def test_the_threshold_of_a_thin_field_is_half_of_its_matters_density():
    for most in (0.1, 10.0):
        found = choose_threshold(density_of(outside_ball, 1e4, most), CUBE)
        assert found == pytest.approx(most / 2, rel=1e-2)
        mesh = extract(density_of(outside_ball, 100.0, most), threshold=None)
        assert chamfer(mesh, outside_ball, on_ball)[0] < 2e-3


def test_where_there_is_no_surface_the_error_names_the_densities():
    with pytest.raises(ValueError, match="threshold: 300 is never reached: at 64 x 64 x 64 nodes density is at most 200"):
        extract(density_of(outside_ball), threshold=300.0)
    with pytest.raises(ValueError, match="is never reached: at 64 x 64 x 64 nodes density is at most 0"):
        extract(lambda p: 0 * p[:, 0], threshold=None)


def test_densities_and_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="density: is not finite at"):
        extract(lambda p: torch.where(p[:, 0] > 0.5, torch.nan, 1.0))
    with pytest.raises(ValueError, match="density: expected one value for each"):
        extract(lambda p: p)
    with pytest.raises(ValueError, match="color: expected shape"):
        extract(density_of(outside_ball), lambda p, d: p[:, :1])
    for threshold in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="threshold: expected a positive density"):
            extract(density_of(outside_ball), threshold=threshold)
    with pytest.raises(ValueError, match="box: expected"):
        extract(density_of(outside_ball), box=CUBE.flip(0))
    with pytest.raises(ValueError, match="resolution: expected at least 2"):
        extract(density_of(outside_ball), resolution=1)


def test_memory_holds_a_slab_and_no_volume(monkeypatch):
    """256³ nodes would be 67 MB as float32."""
    asked = []

    def density(p):
        asked.append(len(p))
        return 200 * torch.sigmoid(-100 * (p.norm(dim=-1) - 0.3))

    monkeypatch.setattr(marching, "SLAB", 2**18)
    tracemalloc.start()
    try:
        mesh = extract(density, resolution=256, chunk=2**16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mesh.is_watertight
    assert max(asked) <= 2**16
    assert peak < 50e6


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".PLY"])
def test_files_open_with_trimesh_with_the_same_geometry_and_colors(tmp_path, suffix):
    mesh = extract(density_of(outside_torus), resolution=32)
    save_mesh(mesh, tmp_path / f"deep/a{suffix}")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == [f"a{suffix}"]
    loaded = trimesh.load(tmp_path / f"deep/a{suffix}", force="mesh", process=False)
    assert np.allclose(loaded.vertices, mesh.vertices, atol=1e-6)
    assert (loaded.faces == mesh.faces).all()
    assert (loaded.visual.vertex_colors == mesh.visual.vertex_colors).all()


def test_a_ply_is_binary(tmp_path):
    save_mesh(extract(density_of(outside_ball), resolution=16), tmp_path / "a.ply")
    assert b"format binary_little_endian 1.0" in (tmp_path / "a.ply").read_bytes()[:200]


def test_another_ending_names_the_three_that_there_are(tmp_path):
    with pytest.raises(ExportError, match=r"a\.stl: expected a name that ends in \.ply, \.obj or \.glb"):
        save_mesh(extract(density_of(outside_ball), resolution=16), tmp_path / "a.stl")
    (tmp_path / "b.ply").mkdir()
    with pytest.raises(ExportError, match=r"b\.ply: is a folder"):
        save_mesh(extract(density_of(outside_ball), resolution=16), tmp_path / "b.ply")
    assert [file.name for file in tmp_path.iterdir()] == ["b.ply"]


def gyroid(p):
    """Much surface in little space."""
    x, y, z = (20 * p).T
    return 30 * (x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos())


def test_a_folded_surface_takes_little_more_memory_than_its_mesh(monkeypatch):
    """72 bytes a corner are the mesh, and connected parts are found in twice that; all faces' normals at once took 440."""
    monkeypatch.setattr(mesh_module, "AT_ONCE", 2**12, raising=False)
    monkeypatch.setattr(marching, "SLAB", 2**16)
    tracemalloc.start()
    try:
        mesh = extract(gyroid, threshold=10.0, resolution=80, chunk=2**14)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 330 * len(mesh.vertices)


def test_an_obj_keeps_ten_digits_of_any_unit(tmp_path, monkeypatch):
    """Of a millionth of a unit, eight behind the point leave two."""
    monkeypatch.setattr(mesh_module, "AT_ONCE", 100, raising=False)
    mesh = extract(density_of(outside_torus), resolution=16)
    mesh.vertices = np.asarray(mesh.vertices) * 1e-6
    save_mesh(mesh, tmp_path / "a.obj")
    loaded = trimesh.load(tmp_path / "a.obj", force="mesh", process=False)
    np.testing.assert_allclose(loaded.vertices, mesh.vertices, rtol=1e-9, atol=1e-16)
    assert (loaded.faces == mesh.faces).all()
    assert (loaded.visual.vertex_colors == mesh.visual.vertex_colors).all()
