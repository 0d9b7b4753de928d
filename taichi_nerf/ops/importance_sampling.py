"""Where to sample rays. See `kernels/importance_sampling.py` for the formulas."""

import torch
from torch import Tensor

from taichi_nerf.kernels import importance_sampling
from taichi_nerf.launch import launch
from taichi_nerf.ops.door import check, plain

SPACINGS = ("linear", "inverse")


def importance_sample(
    bin_edges: Tensor,  # [n_rays, n_bins + 1] ascending
    weights: Tensor,  # [n_rays, n_bins]
    n_samples: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n_samples] in [0, 1)
    stratified: bool = False,
    padding: float = 1e-5,
    blur: bool = False,
) -> Tensor:  # [n_rays, n_samples] ascending
    """Draw t of each ray from the histogram `weights + padding` of its bins, by inverting its cumulative distribution.

    `uniforms` and `stratified` choose the u in [0, 1] at which it is inverted:

        uniforms  stratified
        None      False       linspace(0, 1, n_samples): from the first edge to the last (NeRF and mip-NeRF, evaluation)
        given     False       independent draws, sorted (NeRF, training)
        None      True        the centers of n_samples equal parts of [0, 1]
        given     True        one draw in each of n_samples equal parts of [0, 1] (mip-NeRF, training)

    NeRF's bins lie between the midpoints of its coarse samples, and it leaves out the first and the last weight.
    mip-NeRF's bins are its intervals, with a padding of 0.01 and `blur`: each weight becomes the mean of its maxima with
    its left and its right neighbour, so that samples also go where the coarse ones just missed an edge. One bin from
    near to far, stratified, gives pixelNeRF's coarse samples.

    A ray without any mass is sampled as if all its bins weighed the same. Negative weights and NaN count as zero. In
    a bin with less than 1e-5 of the mass NeRF's own code returns the bin's left edge; here samples spread over it, too.
    The samples are constants to autograd, as in all methods that use them: no gradient flows through this op.
    """
    n_bins = check("importance_sample", weights=(weights, "n_rays n_bins"))["n_bins"]
    check(
        "importance_sample",
        weights=(weights, "n_rays n_bins"),
        bin_edges=(bin_edges, f"n_rays {n_bins + 1}"),
        uniforms=(uniforms, f"n_rays {n_samples}"),
    )
    if n_bins < 1 or n_samples < 0 or not 0 <= padding <= 1e30:
        raise ValueError(
            "importance_sample: expected at least one bin, n_samples >= 0 and 0 <= padding <= 1e30, "
            f"got {n_bins} bins, n_samples={n_samples}, padding={padding}"
        )
    if uniforms is not None:
        rows = plain(uniforms) if stratified else plain(uniforms).sort(-1).values
    elif stratified:
        rows = weights.new_full((1, n_samples), 0.5)
    else:
        rows = torch.linspace(0, 1, n_samples, dtype=weights.dtype, device=weights.device)[None]
    t = weights.new_empty(weights.shape[0], n_samples)
    check("importance_sample", output=(t, "n_rays n_samples"))
    if t.numel():
        launch(importance_sampling.importance_sample, plain(bin_edges), plain(weights), rows, padding, stratified, blur, t)
    return t


def stratified_samples(
    t_near: Tensor,  # [n_rays]
    t_far: Tensor,  # [n_rays]
    n_samples: int,
    *,
    uniforms: Tensor | None = None,  # [n_rays, n_samples] in [0, 1)
    spacing: str = "linear",
) -> Tensor:  # [n_rays, n_samples] ascending
    """Points from near to far, both included, evenly spaced in t ("linear") or in 1 / t ("inverse", for 0 < near).

    With `uniforms` each point is drawn between the midpoints to its neighbours (the first between near and a midpoint,
    the last between one and far), as NeRF does in training. mip-NeRF's interval edges are one such point more than it
    has intervals. The samples are constants to autograd: no gradient flows to near and far.
    """
    check(
        "stratified_samples",
        t_near=(t_near, "n_rays"),
        t_far=(t_far, "n_rays"),
        uniforms=(uniforms, f"n_rays {n_samples}"),
    )
    if spacing not in SPACINGS or n_samples < 0:
        raise ValueError(
            f"stratified_samples: expected spacing of {' or '.join(SPACINGS)} and n_samples >= 0, "
            f"got spacing={spacing!r}, n_samples={n_samples}"
        )
    # No kernel: torch does this at the speed of memory, and on Vulkan and Metal a launch would only add copies.
    near, far = t_near.detach()[:, None], t_far.detach()[:, None]
    s = torch.linspace(0, 1, n_samples, dtype=near.dtype, device=near.device)
    if spacing == "linear" and uniforms is not None and n_samples > 1:
        # Drawn in s, which all rays share: two passes over memory instead of three over t.
        midpoints = torch.lerp(s[:-1], s[1:], 0.5)
        drawn = torch.lerp(torch.cat([s[:1], midpoints]), torch.cat([midpoints, s[-1:]]), uniforms.detach())
        return torch.lerp(near, far, drawn, out=drawn)
    if spacing == "linear":
        t = torch.lerp(near, far, s)
    else:
        t = torch.lerp(1 / near, 1 / far, s).reciprocal_()
        t[:, -1:], t[:, :1] = far, near  # which two reciprocals may miss by a digit
    if uniforms is None or n_samples < 2:
        return t
    midpoints = torch.lerp(t[:, :-1], t[:, 1:], 0.5)
    uniforms = uniforms.detach()
    torch.lerp(midpoints[:, :-1], midpoints[:, 1:], uniforms[:, 1:-1], out=t[:, 1:-1])
    t[:, 0].lerp_(midpoints[:, 0], uniforms[:, 0])
    t[:, -1].lerp_(midpoints[:, -1], 1 - uniforms[:, -1])
    return t
