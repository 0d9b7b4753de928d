"""How near a mesh of a procedural scene is to the scene's true surface, both ways.

    python -m taichi_nerf.benchmarks.surface demo/scene demo/mesh.ply         as `taichi-nerf demo` leaves them

From mesh to surface by the scene's signed distance, at 100,000 points spread over the mesh; from surface to mesh by the nearest
of these, for 100,000 spread over what the scene's cameras see of the surface. Means, as shares of the surface's diameter.
"""

import sys
from pathlib import Path

import numpy as np

from taichi_nerf.procedural.ground_truth import open_made, surface_points
from taichi_nerf.runtime import start
from taichi_nerf.scenes import load_scene
from taichi_nerf.scenes.procedural.surfaces import signed_distance

N = 100_000


def measure(folder: Path, mesh: Path) -> dict[str, float]:
    """Figures of a mesh in the coordinates of the scene's files, as `export` writes it."""
    import trimesh
    from scipy.spatial import cKDTree

    start("cpu")
    scene, made = load_scene(folder), open_made(folder).at(0.0)
    to_file = scene.scene_from_source.inverse()
    cameras = scene.cameras.moved(to_file.scale, to_file.rotation, to_file.translation)
    truth = surface_points(made, N, seen_by=cameras)
    points = np.asarray(trimesh.sample.sample_surface(trimesh.load(mesh, process=False), N, seed=0)[0])
    percent = 100 / float(np.linalg.norm(np.ptp(truth, axis=0)))
    there, back = np.abs(signed_distance(made, points)), cKDTree(points).query(truth)[0]
    return {"mesh_to_surface": percent * float(there.mean()), "surface_to_mesh": percent * float(back.mean())}


if __name__ == "__main__":
    for name, value in measure(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{name:16} {value:.2f} % of the diameter")
