"""`taichi-nerf export`: a run as a mesh or as points."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command
from taichi_nerf.apps.run_options import open_run, run_options


@click.command(cls=Command)
@run_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="X.ply, X.obj (meshes) or X.glb.")
@click.option("--what", type=click.Choice(["mesh", "points"]), default="mesh", show_default=True)
@click.option("--resolution", type=click.IntRange(8, 2048), default=256, show_default=True,
              help="Of a mesh: nodes along the box. Of points: the box over their distance.")  # fmt: skip
@click.option("--threshold", type=click.FloatRange(min=0, min_open=True),
              help="Density at the mesh's surface.  [default: where a thin skin hides half]")  # fmt: skip
def export(run: Path, scene: Path | None, arch: str, out: Path, what: str, resolution: int, threshold: float | None) -> None:
    """Write RUN's surface, colored by vertex, or a cloud of points, in the coordinates of the scene's own files. A .glb is turned
    so that y is up, as glTF has it.

    Of a scene with a surrounding: what lies in the box [-1, 1]^3 of scene units, around which the cameras stand.

    \b
    Example:
      taichi-nerf export runs/chair --out chair.glb
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.export.files import ExportError, expect_suffix, expect_writable
    from taichi_nerf.export.mesh import SUFFIXES, save_mesh
    from taichi_nerf.export.points import save_points
    from taichi_nerf.training.export_run import gltf_from_source, mesh_of_run, points_of_run

    if what == "points" and threshold is not None:
        raise click.UsageError("--threshold is of a mesh; points are where pictures are opaque")
    expect_suffix(out, SUFFIXES)
    if what == "points" and out.suffix.lower() == ".obj":
        raise ExportError(out, "an .obj holds surfaces, not points; write .ply or .glb")
    expect_writable(out)
    loaded = open_run(run, scene, arch)
    with progress() as report:
        if what == "mesh":
            mesh = mesh_of_run(loaded, resolution, threshold, report)
            save_mesh(mesh, out, gltf_from_source(loaded))
            told = f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles"
        else:
            points = points_of_run(loaded, resolution, report)
            save_points(points, out, gltf_from_source(loaded))
            told = f"{len(points.positions):,} points"
    place = "" if not loaded.scene.bounds.unbounded else ", cut to the box in the middle"
    place += ", turned so that y is up" if out.suffix.lower() == ".glb" else ""
    click.echo(f"{told}, in the coordinates of {loaded.scene.folder}{place}: {out}")
