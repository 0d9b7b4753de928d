"""What is wrong with a scene, in one line."""

from pathlib import Path


class SceneError(ValueError):
    """Bad input. The message names the file and the field, what was expected, and where possible how to mend it."""

    def __init__(self, file: Path | str, message: str, field: str = ""):
        where = f"{file}: {field}: " if field else f"{file}: "
        super().__init__(where + message)
