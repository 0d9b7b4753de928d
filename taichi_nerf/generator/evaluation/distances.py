"""Distances between two sets of features: FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018).

FID = ‖μ − μ'‖² + tr(C + C' − 2 (C C')^½)                     of normal distributions with these moments
KID = unbiased MMD² with the kernel (x·y / d + 1)³            mean over random subsets

KID takes all pictures for independent, which views of one subject are not: `kernel_difference` leaves their pairs out.
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


def kernel_difference(views: Array, others: Array, real: Array) -> tuple[float, float]:
    """How much farther from `real` [m, d] the views `others` [n, k, d] of the same n subjects are than `views` [n, k, d], by
    MMD² without pairs of one subject's views (kept, they count against the set whose views agree); and the standard deviation
    of that, by leaving out each subject and each real image once (jackknife)."""
    views, others, real = (np.asarray(each, np.float64) for each in (views, others, real))
    within = (_between_subjects(others) - _between_subjects(views)) / views.shape[1] ** 2
    across = _to_each(others, real) - _to_each(views, real)
    n, m = across.shape
    if n < 3 or m < 2:
        raise ValueError(f"features: expected three subjects and two real images or more, got {n} and {m}")
    np.fill_diagonal(within, 0)
    inside, outside = within.sum(), across.sum()
    less_subjects = (inside - 2 * within.sum(1)) / ((n - 1) * (n - 2)) - 2 * (outside - across.sum(1)) / ((n - 1) * m)
    less_real = inside / (n * (n - 1)) - 2 * (outside - across.sum(0)) / (n * (m - 1))
    variance = (n - 1) * less_subjects.var() + (m - 1) * less_real.var()
    return float(inside / (n * (n - 1)) - 2 * outside / (n * m)), float(np.sqrt(variance))


def _between_subjects(views: Array) -> Array:
    """[n, n] sums of the kernel over the views of two subjects."""
    flat = views.reshape(-1, views.shape[-1])
    return np.stack([_kernel(of, flat).sum(0).reshape(len(views), -1).sum(1) for of in views])


def _to_each(views: Array, real: Array) -> Array:
    """[n, m] means of the kernel over the views of a subject, to each real image."""
    return np.stack([_kernel(of, real).mean(0) for of in views])


def _kernel(a: Array, b: Array) -> Array:
    found: Array = (a @ b.T / a.shape[1] + 1) ** 3
    return found
