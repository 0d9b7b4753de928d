"""`--json FILE` of commands and benchmarks: figures that took minutes to measure, in a file that is whole or as it was."""

from pathlib import Path

from taichi_nerf.export.files import expect_writable
from taichi_nerf.training.atomic import replacing


def expect_place(file: Path | None) -> None:
    """Refuse a file that cannot be written now rather than after the measuring."""
    if file is None or _is_stream(file):
        return
    target = file.resolve()  # a link stays one
    if not target.parent.exists():
        raise FileNotFoundError(2, "No such file or directory", str(target.parent))
    expect_writable(target)


def write_json(file: Path, text: str) -> None:
    if _is_stream(file):
        with file.open("a", encoding="utf-8") as stream:  # behind what a file that it stands for holds
            stream.write(text)
        return
    with replacing(file.resolve()) as replaced:
        replaced.write(text.encode())


def _is_stream(file: Path) -> bool:
    """/dev/stdout and the like, in whose place nothing is to be put, whatever they stand for."""
    return file.exists() and (not file.is_file() or file.absolute().parts[:2] in (("/", "dev"), ("/", "proc")))
