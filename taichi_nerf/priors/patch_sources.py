"""Where patches come from: procedural scenes, which are rendered for it, and scenes on disk that have depth maps."""

import math

import numpy as np
import torch

from taichi_nerf.cameras import Cameras, make_cameras
from taichi_nerf.priors.patch_cameras import small_turn
from taichi_nerf.priors.patches import RgbdPicture, no_finer
from taichi_nerf.procedural import take_picture
from taichi_nerf.report import Report, silent
from taichi_nerf.scenes import SceneData
from taichi_nerf.scenes.procedural import describe, place_cameras

FIRST_SEED = 10_000  # of procedural scenes that priors learn from: those below are left to whoever measures
SIZE, FOCAL = (192, 144), 131.25  # of procedural pictures: DiffusioNeRF's angles, three quarters of its pixels
VIEWS_A_SCENE = 4


def procedural_pictures(family: str, n: int, seed: int = 0, report: Report = silent) -> list[RgbdPicture]:
    """n pictures of scenes of a family, a few of each, by cameras that are also tilted a little."""
    pictures: list[RgbdPicture] = []
    generator = torch.Generator().manual_seed(seed)
    while len(pictures) < n:
        number = FIRST_SEED + 100_000 * seed + len(pictures) // VIEWS_A_SCENE
        scene = describe(family, number)
        poses, _ = place_cameras(family, scene, VIEWS_A_SCENE, number)
        turns = torch.stack([small_turn(generator) for _ in poses]).double().numpy()
        poses = np.concatenate([turns @ poses[:, :, :3], poses[:, :, 3:]], -1)
        cameras = make_cameras(poses, [FOCAL, FOCAL, SIZE[0] / 2, SIZE[1] / 2], list(SIZE))
        for view in range(min(VIEWS_A_SCENE, n - len(pictures))):
            seen = take_picture(scene, cameras, view, 1)
            depth = torch.from_numpy(np.where(seen.depth > 0, seen.depth, np.inf).astype(np.float32))
            pictures.append(
                RgbdPicture(
                    torch.from_numpy(np.rint(seen.color * 255).astype(np.uint8)),
                    inverse_of(depth),
                    torch.from_numpy(np.rint(seen.opacity * 255).astype(np.uint8)),
                    FOCAL,
                )
            )
            report(len(pictures) / n, f"picture {len(pictures)} of {n} of {family}")
    return pictures


def blank_picture() -> RgbdPicture:
    """Of the form of procedural ones."""
    blank = torch.zeros(SIZE[1], SIZE[0])
    return RgbdPicture(blank[..., None].expand(-1, -1, 3).byte(), blank.half(), blank.byte(), FOCAL)


def scene_pictures(
    scene: SceneData, metric_scale: float = 1.0, report: Report = silent, finest: float = math.inf
) -> list[RgbdPicture]:
    """All views of a scene that have a depth map. `metric_scale`: metres per unit of length in the scene's files. `finest`: the
    largest focal length of patches, in their pixels; what is much finer is shrunk as it comes, since all are kept in memory.
    """
    if scene.depths is None or scene.depths.missing.all():
        raise ValueError(f"{scene.folder}: has no depth maps, so there are no RGBD patches to learn from")
    metres = metric_scale / scene.scene_from_source.scale  # a scene unit
    images, maps = scene.images.unkept(), scene.depths.images.unkept()
    pictures = []
    views = np.flatnonzero(~scene.depths.missing)
    for done, view in enumerate(views.tolist()):
        stored = np.asarray(maps[view])[..., 0]
        height, width = stored.shape
        known = np.isfinite(stored.astype(np.float64)) & (stored != scene.depths.invalid) & (stored > 0)
        stated = np.where(known, stored, 1).astype(np.float64) * scene.depths.unit
        depth = 1 / stated if scene.depths.kind == "inverse" else stated
        cameras = scene.cameras[[view]].resized([[width, height]])
        if scene.depths.kind == "ray":
            depth = depth * axis_cosines(cameras).reshape(height, width)
        inverse = torch.where(torch.from_numpy(known), inverse_of(torch.from_numpy(depth * metres)), -1.0)
        color = torch.from_numpy(np.array(images[view]))
        color = _in_bytes(color, scene.linear)
        if color.shape[:2] != (height, width):  # colors at the depth map's pixels
            shrunk = torch.nn.functional.interpolate(color.movedim(-1, 0)[None].float(), (height, width), mode="area")
            color = shrunk[0].movedim(0, -1).round().byte()
        alpha = color[..., 3] if color.shape[-1] == 4 else torch.full((height, width), 255, dtype=torch.uint8)
        whole = RgbdPicture(
            color[..., :3] if color.shape[-1] >= 3 else color[..., :1].expand(-1, -1, 3),
            inverse.half(),
            alpha,
            float(cameras.intrinsics[0, :2].mean()),
        )
        pictures.append(no_finer(whole, finest))
        report((done + 1) / len(views), f"view {done + 1} of {len(views)} of {scene.folder.name}")
    return pictures


def inverse_of(depth: torch.Tensor) -> torch.Tensor:
    """1 / depth, as `RgbdPicture` keeps it; at most a thousand."""
    return (1 / depth.clamp_min(1e-3)).half()


def axis_cosines(cameras: Cameras) -> np.ndarray:
    """How far along the axis a step along the ray of each pixel of the first camera leads [h * w]."""
    width, height = (int(side) for side in cameras.sizes[0])
    y, x = np.mgrid[:height, :width] + 0.5
    _, directions = cameras.rays(0, np.stack([x.ravel(), y.ravel()], -1))
    return directions @ cameras.forwards[0]


def _in_bytes(color: torch.Tensor, linear: bool) -> torch.Tensor:
    """Colors as displayed, 0 to 255."""
    if color.dtype == torch.uint8:
        return color
    shown = color.float() / (65535 if color.dtype == torch.uint16 else 1)
    if linear:  # sRGB's curve, near enough
        shown = shown.clamp_min(0) ** (1 / 2.2)
    return (shown.clamp(0, 1) * 255).round().byte()
