"""`taichi-nerf photos`: a folder of photos, or a video, to a posed scene."""

from pathlib import Path

import click

from taichi_nerf.apps.command import Command, given_options, seed_option


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new folder for the scene.")
@click.option("--matching", type=click.Choice(["auto", "exhaustive", "sequential"]), default="auto", show_default=True)
@click.option("--camera-model", default="SIMPLE_RADIAL", show_default=True, help="COLMAP's name of the lens model.")
@click.option(
    "--max-image-size", type=click.IntRange(64, 65536), default=1600, show_default=True, help="Features are sought at this size."
)
@click.option(
    "--n-frames", type=click.IntRange(2, 10_000), default=150, show_default=True, help="Sharpest frames taken from a video."
)
@click.option("--undistort", is_flag=True, help="Write straightened pictures; without it the lens is kept and used.")
@seed_option()
def photos(
    source: Path, out: Path, matching: str, camera_model: str, max_image_size: int, n_frames: int, undistort: bool, seed: int
) -> None:
    """Find out where photos were taken, with COLMAP: pip install "pycolmap>=4".

    \b
    Example:
      taichi-nerf photos my_photos --out scenes/my_photos
    """
    from taichi_nerf.apps.progress import progress
    from taichi_nerf.scenes.photos import photos_to_scene

    given = {option.name for option in given_options(click.get_current_context())}
    if source.is_dir() and "n_frames" in given:
        raise click.UsageError(f"--n-frames is of a video, and of the pictures in {source} all are taken: leave it out")
    with progress() as report:
        found = photos_to_scene(
            source,
            out,
            matching=matching,
            camera_model=camera_model,
            max_image_size=max_image_size,
            n_frames=n_frames,
            undistort=undistort,
            seed=seed,
            report=report,
        )
    click.echo(
        f"{found.n_registered} of {found.n_photos} pictures registered, {found.n_points} points, "
        f"mean reprojection error {found.reprojection_error:.2f} px"
    )
    if found.failed:
        click.echo(f"not registered: {', '.join(found.failed)}")
    for what in found.passed_over:
        click.echo(what)
    if found.n_models > 1:
        click.echo(f"the pictures fell apart into {found.n_models} groups without common points; this is the largest")
    click.echo(found.scene)
