"""What is wrong with a file or a folder, in one line that names it."""

from pathlib import Path


class FileError(ValueError):
    """Each kind of file has its own."""

    def __init__(self, file: Path | str, message: str):
        super().__init__(f"{file}: {message}")


def one_line(error: BaseException, most: int) -> str:
    """The first letters of what a library said, to stand in such a line."""
    return " ".join(str(error).split())[:most]
