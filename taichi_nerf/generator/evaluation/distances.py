"""Distances between two sets of features: FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018).

FID = ‖μ − μ'‖² + tr(C + C' − 2 (C C')^½)                     of normal distributions with these moments
KID = unbiased MMD² with the kernel (x·y / d + 1)³            mean over random subsets
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def frechet_distance(features: Array, others: Array) -> float:
    """FID of features [n, d] and [m, d]. tr (C C')^½ is the sum of the roots of the eigenvalues of C^½ C' C^½."""
    x, y = (np.asarray(each, np.float64) for each in (features, others))
    if min(len(x), len(y)) < 2 or x.shape[1:] != y.shape[1:] or x.ndim != 2:
        raise ValueError(f"features: expected two sets [n, d] of two or more, got {x.shape} and {y.shape}")
    c, other = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(c)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    trace_of_root = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c) + np.trace(other) - 2 * trace_of_root)


def kernel_distance(features: Array, others: Array, n_subsets: int = 100, size: int = 1000, seed: int = 0) -> float:
    """KID of features [n, d] and [m, d]; it may be negative, for it is unbiased."""
    x, y = (np.asarray(each, np.float64) for each in (features, others))
    size = min(size, len(x), len(y))
    if size < 2 or x.shape[1:] != y.shape[1:] or x.ndim != 2:
        raise ValueError(f"features: expected two sets [n, d] of two or more, got {x.shape} and {y.shape}")
    random = np.random.default_rng(seed)
    total = 0.0
    for _ in range(n_subsets):
        a, b = x[random.choice(len(x), size, replace=False)], y[random.choice(len(y), size, replace=False)]
        aa, bb, ab = _kernel(a, a), _kernel(b, b), _kernel(a, b)
        total += (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (size * (size - 1)) - 2 * ab.mean()
    return total / n_subsets


def _kernel(a: Array, b: Array) -> Array:
    found: Array = (a @ b.T / a.shape[1] + 1) ** 3
    return found
