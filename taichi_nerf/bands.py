"""Large arrays in bands of rows: what is made of them on the way is in memory for one band alone."""


def bands(n: int, size: int, at_once: int, multiple: int = 1) -> list[slice]:
    """Slices of n rows of `size` numbers each, as many rows as have `at_once` numbers together, and at least one.

    All bands but the last have a multiple of so many rows.
    """
    step = max(1, at_once // size // multiple) * multiple
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]
