"""Ways to break a scene on disk, for the fuzz test. A scene is a dict from relative path to content; each way changes it at
random. Values within JSON and NumPy files are broken by `mutations_of_values`.

A way returns False where it found nothing to change. Contents may become `Link` or `FOLDER`, which `write` makes.
"""

import os
import re
from pathlib import Path

from mutations_of_values import ODD_PATHS, json_depth, json_values, numpy_arrays, one_of, pick

FOLDER = "folder"
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
ODD_NUMBERS = (*b"nan -inf 1e999 1e308 -1e30 0 -1 99999999999999999999 text null 1e-300 0x10".split(), b"")
ODD_BYTES = (b"\xff\xfe\x00", b"\x00" * 64, b"\r\n\r\n", b"\xed\xa0\x80", b"{", b"[", b'"', b"#", b"\xef\xbb\xbf")


class Link(str):
    """A symbolic link to a path."""


def read(folder: Path) -> dict:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def write(scene: dict, folder: Path) -> None:
    for name, content in scene.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is FOLDER:
            file.mkdir(exist_ok=True)
        elif isinstance(content, Link):
            os.symlink(content, file)
        else:
            file.write_bytes(content)


def truncate(scene, generator):
    name = pick(scene, generator)
    scene[name] = scene[name][: generator.integers(len(scene[name]) + 1)]


def flip_bits(scene, generator):
    name = pick(scene, generator, lambda _, content: content)
    content = bytearray(scene[name])
    for _ in range(generator.integers(1, 9)):
        content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
    scene[name] = bytes(content)


def empty(scene, generator):
    scene[pick(scene, generator)] = b""


def delete(scene, generator):
    del scene[pick(scene, generator)]


def delete_many(scene, generator):
    ending = Path(pick(scene, generator)).suffix
    for name in [name for name in scene if name.endswith(ending)]:
        del scene[name]


def swap(scene, generator):
    a, b = pick(scene, generator), pick(scene, generator)
    scene[a], scene[b] = scene[b], scene[a]


def duplicate(scene, generator):
    name = Path(pick(scene, generator))
    scene[str(name.with_name(one_of(["copy_", "0", "_", "é"], generator) + name.name))] = scene[str(name)]


def into_folder(scene, generator):
    scene[pick(scene, generator)] = FOLDER


def into_link(scene, generator):
    name = pick(scene, generator)
    scene[name] = Link(one_of(["/etc/passwd", "../../..", Path(name).name, "nowhere", "/dev/null", "/"], generator))


def is_text(_, content):
    return b"\0" not in content[:4096] and not content.startswith((b"\x89PNG", b"\xff\xd8", b"PK"))


def numbers(scene, generator):
    name = pick(scene, generator, lambda name, content: is_text(name, content) and NUMBER.search(content))
    if name is None:
        return False
    hits = list(NUMBER.finditer(scene[name]))
    for hit in sorted(
        (hits[generator.integers(len(hits))] for _ in range(generator.integers(1, 4))), key=lambda hit: -hit.start()
    ):
        scene[name] = scene[name][: hit.start()] + one_of(ODD_NUMBERS, generator) + scene[name][hit.end() :]
    return True


def lines(scene, generator):
    name = pick(scene, generator, lambda name, content: is_text(name, content) and content.count(b"\n") > 1)
    if name is None:
        return False
    rows = scene[name].split(b"\n")
    a, b = generator.integers(len(rows), size=2)
    changed = ([], [rows[b], rows[a]], [rows[a] * 500])[generator.integers(3)]  # gone, after a copy of another, long
    rows[a : a + 1] = changed
    scene[name] = b"\n".join(rows)
    return True


def insert(scene, generator):
    name = pick(scene, generator)
    at = generator.integers(len(scene[name]) + 1)
    scene[name] = scene[name][:at] + one_of(ODD_BYTES, generator) + scene[name][at:]


def large_integers(scene, generator):
    """What a count in a binary file may claim."""
    name = pick(scene, generator, lambda name, content: len(content) >= 8 and not is_text(name, content))
    if name is None:
        return False
    at = int(generator.integers((len(scene[name]) - 4) // 4)) * 4 if generator.random() < 0.7 else 0
    value = one_of([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8, b"\0\0\0\0\1\0\0\0"], generator)
    scene[name] = scene[name][:at] + value + scene[name][at + len(value) :]
    return True


def paths_in_text(scene, generator):
    name = pick(scene, generator, lambda name, content: is_text(name, content) and not name.endswith(".json"))
    words = re.findall(rb"[^\s]*[A-Za-z_][^\s]*", scene[name]) if name else []
    if not words:
        return False
    odd = one_of(ODD_PATHS, generator).encode("utf-8", "surrogatepass")
    scene[name] = scene[name].replace(one_of(words, generator), odd, 1)
    return True


WAYS = (truncate, flip_bits, empty, delete, delete_many, swap, duplicate, into_folder, into_link, numbers, numbers, lines, insert)
WAYS += (large_integers, paths_in_text, json_depth, *(json_values, numpy_arrays) * 3)


def mutate(scene: dict, generator) -> list[str]:
    """One to three changes; their names."""
    names = []
    while not names or (len(names) < 3 and generator.random() < 0.35):
        way = one_of(WAYS, generator)
        if any(isinstance(content, bytes) and content for content in scene.values()) and way(scene, generator) is not False:
            names.append(way.__name__)
        elif not scene:
            break
    return names
