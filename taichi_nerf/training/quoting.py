"""Paths in the commands that messages suggest, as the shell of this system takes them."""

import os
import re
import shlex
from pathlib import Path

PLAIN = re.compile(r"[\w\\/:.+-]+")


def quote(path: Path | str) -> str:
    """In quotes where it needs them. Windows' shells all know double ones, and to cmd.exe single ones are part of the name."""
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    return text if PLAIN.fullmatch(text) else f'"{text}"'
