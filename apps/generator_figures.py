"""What `taichi-nerf generator evaluate` measures with, and its table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from taichi_nerf.apps.generator_options import pictures_of

if TYPE_CHECKING:
    import torch

    from taichi_nerf.generator.evaluation.report import Instruments
    from taichi_nerf.generator.model_folder import ModelFolder

COLUMNS = {"warp_error": "{:.4f}", "ssim": "{:.3f}", "identity": "{:.3f}", "fid": "{:.2f}", "kid": "{:.4f}", "yaw_span": "{:.1f}"}
N_REAL = 100  # persons whose pictures stand for real images of the built-in model


def instruments(
    folder: "ModelFolder", images: str | None, inception: Path | None, embedder: Path | None, train: int | None,
    device: "torch.device", report: Any,
) -> "Instruments":  # fmt: skip
    """Features, embedder and regressor of the model's own or of the user's files, and real images."""
    from taichi_nerf.generator.evaluation.feature_files import load_features
    from taichi_nerf.generator.evaluation.features import NAME
    from taichi_nerf.generator.evaluation.published_features import embedder as load_embedder
    from taichi_nerf.generator.evaluation.published_features import inception_features
    from taichi_nerf.generator.evaluation.report import Instruments
    from taichi_nerf.generator.heads import HELD_OUT, heads
    from taichi_nerf.generator.image_set import open_image_set
    from taichi_nerf.generator.stages import make_features

    size = folder.load_generator().settings.resolution
    real = None
    if images is not None:
        real = pictures_of(images, size, folder.images, report)
    elif folder.images.exists():
        real = open_image_set(folder.images, size)
    if train is not None:
        if real is None:
            raise ValueError("--train-features needs real images: give --images")
        make_features(folder, real, train, device, report=report)
    if real is None and folder.name == "builtin":
        real = heads(range(HELD_OUT, HELD_OUT + N_REAL), 4, size, report=report)
    own = load_features(folder.features).to(device) if folder.features.exists() else None
    features, name = (None if own is None else own.features), (None if own is None else NAME)
    if inception is not None:
        features, name = inception_features(inception), "inception-2015-12-05"
    identity = None if own is None else own.identity
    if embedder is not None:
        identity = load_embedder(embedder)
    yaws = own.yaws if own is not None and own.settings.knows_yaw else None
    return Instruments(name, features, identity, yaws, None if real is None else real.images)


def table(found: dict[str, Any]) -> str:
    """The figures as text."""
    lines = ["              " + "".join(f"{name:>12}" for name in COLUMNS)]
    rows = {name: found[name] for name in ("gan_space", "refined") if name in found}
    rows |= {f"{method} ±{limit}": row for limit, of in found["ranges"].items() if limit != "full" for method, row in of.items()}
    rows |= {name: row for name, row in found.get("ablation", {}).items() if name != "full"}
    for name, row in rows.items():
        cells = ("-" if row[key] is None else form.format(row[key]) for key, form in COLUMNS.items())
        lines.append(f"{name:<14}" + "".join(f"{cell:>12}" for cell in cells))
    for name in ("yaw_correlation", "pose_correlation", "pose_preservation"):
        if found.get(name) is not None:
            lines.append(f"{name.replace('_', ' ')}: {found[name]:.3f}")
    lines += [f"{name}: missing {what}" for name, what in found["missing"].items()]
    if found["features"]:
        lines.append(f"features for FID and KID: {found['features']}")
    return "\n".join(lines)
