"""Paths in the commands that messages suggest, as the shell of this system takes them."""

import os
import re
import shlex
from pathlib import Path

PLAIN = re.compile(r"[\w\\/:.+-]+")


def quote(path: Path | str) -> str:
    """In quotes where it needs them, and no option. To cmd.exe single quotes are part of a name; double ones all shells know."""
    text = str(path)
    text = f".{os.sep}{text}" if text.startswith("-") else text
    if os.name != "nt":
        return shlex.quote(text)
    return text if PLAIN.fullmatch(text) else f'"{text}"'
