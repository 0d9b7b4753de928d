"""How far something is, told to whoever started it: `report(share that is done, what is being done)`."""

from collections.abc import Callable

Report = Callable[[float, str], None]


def silent(done: float, text: str) -> None:
    """Tells nobody."""
