"""What is wrong with a file of weights."""

from pathlib import Path


class WeightsError(ValueError):
    """A file of weights that cannot be used. The message is one line and names the file."""

    def __init__(self, file: Path | str, message: str):
        super().__init__(f"{file}: {message}")
