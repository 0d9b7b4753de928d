"""The table of `taichi-nerf generator evaluate`."""

from typing import Any

COLUMNS = {"warp_error": "{:.4f}", "ssim": "{:.3f}", "identity": "{:.3f}", "fid": "{:.2f}", "kid": "{:.4f}",
           "yaw_span": "{:.1f}"}  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The figures as text."""
    lines = ["              " + "".join(f"{name:>12}" for name in COLUMNS)]
    rows: dict[str, Any] = {name: found[name] for name in ("gan_space", "refined") if name in found}
    rows |= {f"{method} ±{limit}": row for limit, of in found["ranges"].items() if limit != "full" for method, row in of.items()}
    rows |= {name: row for name, row in found.get("ablation", {}).items() if name != "full"}
    for name, row in rows.items():
        cells = ("-" if row[key] is None else form.format(row[key]) for key, form in COLUMNS.items())
        lines.append(f"{name:<14}" + "".join(f"{cell:>12}" for cell in cells))
    for name in ("yaw_correlation", "pose_correlation", "pose_preservation"):
        if found.get(name) is not None:
            lines.append(f"{name.replace('_', ' ')}: {found[name]:.3f}")
    if found.get("kid_difference"):
        change = "{value:+.4f} ± {deviation:.4f}".format(**found["kid_difference"])
        lines.append(f"refining changes KID by {change} (without pairs of views of one subject)")
    lines += [f"{name}: missing {what}" for name, what in found["missing"].items()]
    if found["features"]:
        lines.append(f"features for FID and KID: {found['features']}")
    return "\n".join(lines)
