"""Smooth curves through positions and orientations, for camera paths. Orientations are unit quaternions, real part first."""

from itertools import pairwise

import numpy as np

from taichi_nerf.cameras import Array


class Curve:
    """Cubic Bézier pieces through positions [n, 3] and orientations [n, 4], alike: where positions take straight lines,
    orientations take the shortest arc. Piece i runs over the parameter from i to i + 1.

    Knots are centripetal, the square root of the length of a stretch, so that uneven spacing makes no loops and no cusps.
    """

    def __init__(self, positions: Array, orientations: Array, closed: bool):
        if closed:
            positions, orientations = (
                np.append(positions, positions[:1], 0),
                np.append(orientations, orientations[:1], 0),
            )
        steps = np.diff(positions, axis=0)
        turns = rotation_vector(multiply(conjugate(orientations[:-1]), orientations[1:]))
        self.n_pieces = len(steps)
        self.turning = turning_length(np.linalg.norm(steps, axis=-1), np.linalg.norm(turns, axis=-1))
        lengths = np.hypot(np.linalg.norm(steps, axis=-1), self.turning * np.linalg.norm(turns, axis=-1))
        times = np.sqrt(np.maximum(lengths, 1e-6 * (lengths.mean() or 1.0)))
        move, turn = speeds(steps, times, closed), speeds(turns, times, closed)
        third = times[:, None] / 3
        self.moves = np.stack(
            [positions[:-1], positions[:-1] + third * move[:-1], positions[1:] - third * move[1:], positions[1:]]
        )
        leave = multiply(orientations[:-1], quaternion(third * turn[:-1]))
        arrive = multiply(orientations[1:], quaternion(-third * turn[1:]))
        self.turns = np.stack([orientations[:-1], leave, arrive, orientations[1:]])

    def __call__(self, at: Array) -> tuple[Array, Array]:
        """Positions [m, 3] and orientations [m, 4] at parameters [m], by de Casteljau's construction."""
        piece = np.clip(np.floor(at).astype(int), 0, self.n_pieces - 1)
        u = (at - piece)[:, None]
        moves, turns = list(self.moves[:, piece]), list(self.turns[:, piece])
        while len(moves) > 1:
            moves = [(1 - u) * a + u * b for a, b in pairwise(moves)]
            turns = [slerp(a, b, u) for a, b in pairwise(turns)]
        return moves[0], turns[0]

    def lengths(self, at: Array) -> Array:
        """[m - 1] of the curve between neighbouring parameters; turning counts a little, so that a pure turn takes time."""
        positions, orientations = self(at)
        turned = rotation_vector(multiply(conjugate(orientations[:-1]), orientations[1:]))
        return np.hypot(np.linalg.norm(np.diff(positions, axis=0), axis=-1), self.turning * np.linalg.norm(turned, axis=-1))


def turning_length(moved: Array, turned: Array) -> float:
    """What a radian counts for: a tenth of the path's own length a radian, so that even motion is hardly slowed by it."""
    return float(0.1 * moved.sum() / turned.sum()) if moved.sum() > 0 and turned.sum() > 0 else 1.0


def speeds(steps: Array, times: Array, closed: bool) -> Array:
    """[n + 1, 3] at the ends of n steps: of the parabola through a place and its neighbours; at open ends, without curvature."""
    rates = steps / times[:, None]
    before, after = times[:-1, None], times[1:, None]
    inner = (after * rates[:-1] + before * rates[1:]) / (before + after)
    if closed:
        seam = (times[0] * rates[-1] + times[-1] * rates[0]) / (times[0] + times[-1])
        return np.concatenate([seam[None], inner, seam[None]])
    if len(rates) == 1:
        return np.repeat(rates, 2, 0)
    return np.concatenate([1.5 * rates[:1] - 0.5 * inner[:1], inner, 1.5 * rates[-1:] - 0.5 * inner[-1:]])


def even_steps(parameters: Array, lengths: Array, n: int, closed: bool) -> Array:
    """[n] parameters that divide a curve evenly, from the lengths between `parameters`. A closed curve omits its end."""
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    if travelled[-1] <= 0:
        return np.linspace(parameters[0], parameters[-1], n, endpoint=not closed)
    return np.interp(np.linspace(0, travelled[-1], n, endpoint=not closed), travelled, parameters)


# --- quaternions [n, 4]: w, x, y, z ------------------------------------------------------------------------------------


def quaternions(matrices: Array) -> Array:
    """Of rotation matrices [n, 3, 3]: the eigenvector to the largest eigenvalue of a 4 x 4 matrix (Bar-Itzhack)."""
    m = matrices
    k = np.zeros((len(m), 4, 4))
    k[:, 0, 0] = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    for i in range(3):
        j, l = (i + 1) % 3, (i + 2) % 3  # noqa: E741
        k[:, 0, i + 1] = k[:, i + 1, 0] = m[:, l, j] - m[:, j, l]
        k[:, i + 1, i + 1] = m[:, i, i] - m[:, j, j] - m[:, l, l]
        k[:, i + 1, j + 1] = k[:, j + 1, i + 1] = m[:, i, j] + m[:, j, i]
    return np.linalg.eigh(k)[1][:, :, -1]


def rotations(q: Array) -> Array:
    """[n, 3, 3]"""
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def multiply(a: Array, b: Array) -> Array:
    w = a[:, :1] * b[:, :1] - (a[:, 1:] * b[:, 1:]).sum(-1, keepdims=True)
    return np.concatenate([w, a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + np.cross(a[:, 1:], b[:, 1:])], -1)


def conjugate(q: Array) -> Array:
    return q * np.array([1, -1, -1, -1])


def quaternion(vectors: Array) -> Array:
    """Of rotation vectors [n, 3], axis times angle."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle / 2), vectors * np.sinc(angle / (2 * np.pi)) / 2], -1)


def rotation_vector(q: Array) -> Array:
    """[n, 3] axis times angle, the shorter way round: at most half a turn."""
    q = np.where(q[:, :1] < 0, -q, q)
    sine = np.linalg.norm(q[:, 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[:, :1])
    return q[:, 1:] * np.where(sine > 1e-12, angle / np.where(sine > 1e-12, sine, 1), 2.0)


def slerp(a: Array, b: Array, u: Array) -> Array:
    """The shortest arc from a to b, at fractions u [n, 1]."""
    return multiply(a, quaternion(u * rotation_vector(multiply(conjugate(a), b))))
