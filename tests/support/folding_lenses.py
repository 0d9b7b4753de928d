"""Random rational lenses, most with a fold or a pole, and points before it: what bisection along the radius says, in 64 bits."""

import numpy as np


def radius(r, k):
    t = r * r
    over, under = 1 + t * (k[0] + t * (k[1] + t * k[2])), 1 + t * (k[3] + t * (k[4] + t * k[5]))
    return r * over / under, under


def folding_lenses(n=300, n_points=20):
    """Coefficients [n, 8], image points and slopes (p, q) of their directions [n, n_points, 2]."""
    random = np.random.default_rng(0)
    lenses = np.pad(random.normal(0, [0.6, 0.3, 0.1, 0.6, 0.3, 0.1], (n, 6)), ((0, 0), (0, 2)))
    turn = random.uniform(0, 2 * np.pi, (n, n_points))
    along = np.stack([np.cos(turn), np.sin(turn)], -1)
    wanted, found = np.zeros((2, n, n_points))
    for i, k in enumerate(lenses):
        r = np.linspace(0, 3, 30001)[1:]
        image, under = radius(r, k)
        ends = (np.diff(image, prepend=0) <= 0) | (under <= 0)
        last = int(np.argmax(ends)) - 1 if ends.any() else -1
        wanted[i] = np.linspace(0.02, 0.97, n_points) * min(image[last], 5)
        low, high = np.zeros(n_points), np.full(n_points, r[last])
        for _ in range(60):
            middle = (low + high) / 2
            under = radius(middle, k)[0] < wanted[i]
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        found[i] = low
    return lenses, along * wanted[..., None], along * found[..., None]
