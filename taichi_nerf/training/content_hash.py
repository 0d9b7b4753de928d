"""Whether a scene's files are still those that a training began with."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

WHOLE = 2**18  # bytes: a file up to here is read as a whole
END = 2**16  # bytes read at either end of a larger one


def content_hash(files: Iterable[Path], folder: Path | None = None) -> str:
    """A hash over the files' names, sizes and contents: 32 hexadecimal digits.

    Of a file above 256 KiB only the first and last 64 KiB are read, so a scene of gigabytes takes a moment. Noticed is any file
    that was added, removed, renamed or resized, and any change in a small file or at an end of a large one. Not noticed
    is a change inside a large file that keeps its size: rare, since compressed pictures change in length. Times do not count,
    nor does where the scene lies: names are relative to `folder`, or else to the folder that the files have in common, so a
    copy of a scene is the same scene. It guards against mistakes, not against forgery.
    """
    paths = sorted(
        {Path(os.path.abspath(file)) for file in files}, key=lambda path: path.parts
    )  # on Windows paths disregard case
    root = Path(os.path.abspath(folder)) if folder else Path(os.path.commonpath([p.parent for p in paths])) if paths else Path()
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            with open(path, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                head = stream.read(WHOLE if size <= WHOLE else END)
                stream.seek(max(size - END, len(head)))
                tail = stream.read(END)
        except OSError as error:
            raise ValueError(f"{path}: could not be read ({error.strerror}); the scene is hashed from all its files") from error
        name = os.path.relpath(path, root).replace(os.sep, "/").encode(errors="surrogateescape")
        for part in (name, str(size).encode(), head, tail):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
