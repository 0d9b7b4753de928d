"""A small scene of the form of Hypersim. Needs h5py."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from sample_rgbd import room_poses, z_depths

from opengl_views import write_picture

SIZE = (40, 30)
FOCAL = 20 * np.sqrt(3)  # 60 degrees across
K = (FOCAL, FOCAL, 20.0, 15.0)
UNIT = 0.0254


def write(file: Path, values) -> None:
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        opened.create_dataset("dataset", data=values, compression="gzip")


def make(folder: Path, n=4, camera="cam_00", previews=True) -> list:
    """Writes one camera's trajectory; OpenGL poses in metres come back."""
    poses = room_poses(n)
    detail, images = folder / "_detail", folder / "images"
    write(detail / camera / "camera_keyframe_positions.hdf5", np.stack([matrix[:3, 3] for matrix in poses]) / UNIT)
    write(detail / camera / "camera_keyframe_orientations.hdf5", np.stack([matrix[:3, :3] for matrix in poses]))
    write(detail / camera / "camera_keyframe_frame_indices.hdf5", np.arange(n)[:, None])
    (detail / "metadata_scene.csv").write_text(f"parameter_name,parameter_value\nmeters_per_asset_unit,{UNIT}\n")
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5 - K[2], np.arange(SIZE[1]) + 0.5 - K[3])
    stretch = np.sqrt(1 + (x / FOCAL) ** 2 + (y / FOCAL) ** 2)  # of a ray against the axis
    for i, matrix in enumerate(poses):
        pixels = np.random.default_rng(i).uniform(0, 3, (*SIZE[::-1], 3)).astype(np.float16)
        write(images / f"scene_{camera}_final_hdf5/frame.{i:04d}.color.hdf5", pixels)
        depths = z_depths(matrix, SIZE, K) * stretch
        write(images / f"scene_{camera}_geometry_hdf5/frame.{i:04d}.depth_meters.hdf5", depths.astype(np.float32))
        if previews:
            write_picture(images / f"scene_{camera}_final_preview/frame.{i:04d}.tonemap.jpg", *SIZE, 3, seed=i)
    imageio.imwrite(images / "unrelated.png", np.zeros((2, 2), np.uint8))
    return poses
