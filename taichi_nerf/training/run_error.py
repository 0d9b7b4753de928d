"""What is wrong with a folder that a training writes, in one line."""

from pathlib import Path


class RunError(ValueError):
    """A run folder that cannot be used as asked. The message is one line and names the folder or file."""

    def __init__(self, file: Path | str, message: str):
        super().__init__(f"{file}: {message}")
