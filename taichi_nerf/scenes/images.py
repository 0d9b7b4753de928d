"""Pictures on disk: read when they are needed, kept as the type they have, within a bound on memory.

A scene of a thousand photos is larger than memory as float32 and often as uint8. `Images` reads a picture when it is indexed,
at the size the scene asked for, and keeps the most recent ones up to a number of bytes.
"""

import contextlib
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from taichi_nerf.file_error import one_line
from taichi_nerf.scenes.deep_pictures import is_deep_png, is_deep_tiff, read_deep, read_deep_png
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.hdf5 import hdf5_shape, read_hdf5
from taichi_nerf.scenes.shrink import shrink

Array = NDArray[Any]
LARGEST_IMAGE = 2**28  # pixels: beyond any camera, and what a decompression bomb would ask for
Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE  # Pillow's own limit is below what phones take
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations of pictures that are shown with rows and columns exchanged
IMAGE_WIDTH, IMAGE_LENGTH = 256, 257  # TIFF's tags
CACHE_BYTES = 2 * 2**30
HDF5 = (".hdf5", ".h5")  # Hypersim's pictures and depth maps
EXTENSIONS = (".png", ".jpg", ".jpeg", ".exr", ".hdr", ".tif", ".tiff", ".webp", ".bmp", ".ppm")


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) as the picture is meant to be seen (EXIF orientation applied), from the header alone."""
    (width, height), orientation = stored_size(file)
    return (height, width) if orientation in SIDEWAYS else (width, height)


def stored_size(file: Path) -> tuple[tuple[int, int], int]:
    """(width, height) as the pixels are stored, and the EXIF orientation, 1 to 8; 1 is upright. From the header alone."""
    if file.suffix.lower() == ".npy":
        height, width = _read_array(file).shape[:2]
        return (width, height), 1
    if file.suffix.lower() in HDF5:
        height, width = hdf5_shape(file, 2)[:2]
        return (width, height), 1
    with _complaints_about(file), imageio.imopen(file, "r", **_plugin(file)) as opened:
        height, width = opened.properties(index=0).shape[:2]
        may_turn = _is_pillow(file) and _may_have_orientation(file)
        orientation = opened.metadata(index=0, exclude_applied=False).get("Orientation", 1) if may_turn else 1
        if orientation in SIDEWAYS and file.suffix.lower() in (".tif", ".tiff"):
            with Image.open(file) as picture:  # Pillow says of a TIFF alone how large it is shown
                stored = getattr(picture, "tag_v2", {})
                width, height = stored.get(IMAGE_WIDTH, width), stored.get(IMAGE_LENGTH, height)
    if height < 1 or width < 1:  # Pillow recognises some formats that it cannot open
        raise SceneError(file, "is no readable image: has no pixels")
    if height * width > LARGEST_IMAGE:
        raise SceneError(file, f"is {width} x {height} pixels, more than any camera takes")
    return (width, height), orientation if orientation in range(1, 9) else 1


def _may_have_orientation(file: Path) -> bool:
    """False for a PNG without EXIF or text: asking Pillow would decode the whole picture to look behind its pixels."""
    with file.open("rb") as data:
        if data.read(8) != b"\x89PNG\r\n\x1a\n":
            return True
        for _ in range(100_000):
            head = data.read(8)
            if len(head) < 8 or head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"IEND"):
                return head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
            data.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return True


def read_image(file: Path) -> Array:
    """[height, width, channels] of uint8, uint16 or float32, EXIF orientation applied; 1, 3 or 4 channels."""
    if file.suffix.lower() == ".npy":
        found = np.array(_read_array(file))
        found = found.astype(np.float32) if found.dtype == np.float64 else found
    elif file.suffix.lower() in HDF5:
        found = read_hdf5(file)
        found = found.astype(np.float32) if found.dtype == np.float64 else found
    else:
        _, orientation = stored_size(file)  # refuses what would not fit before it is decoded
        with _complaints_about(file):
            mode = _mode(file) if _is_pillow(file) else None
            if mode is None and is_deep_png(file):
                found = _upright(read_deep_png(file), orientation)
            else:
                options: dict[str, Any] = {"rotate": True, "mode": mode} if _is_pillow(file) else {}
                found = np.asarray(imageio.imread(file, index=0, **_plugin(file), **options))
                found = _with_all_bits(file, found, orientation) if is_deep_tiff(file) else found
    if found.ndim == 2:
        found = found[..., None]
    if found.dtype == np.bool_:
        found = found.astype(np.uint8) * 255
    found = found.astype(found.dtype.newbyteorder("="), copy=False)
    if found.dtype == np.int32 and found.min() >= 0 and found.max() < 2**16:  # Pillow's type for 16-bit grey
        found = found.astype(np.uint16)
    if found.ndim != 3 or found.dtype not in (np.uint8, np.uint16, np.float32, np.float16):
        raise SceneError(file, f"has an unusual layout: {found.dtype} of shape {found.shape}")
    if found.shape[2] == 2:  # grey and alpha
        found = found[..., [0, 0, 0, 1]]
    return found


def _with_all_bits(file: Path, shown: Array, orientation: int) -> Array:
    """A TIFF's 16 bits a color, of which Pillow has shown the upper 8. These stay where ffmpeg reads others, or none: it does not
    know all kinds of TIFF."""
    height, width = shown.shape[1::-1] if orientation in SIDEWAYS else shown.shape[:2]
    try:
        found = _upright(read_deep(file, height, width, shown.shape[2]), orientation)
    except ValueError:
        return shown
    return found if np.array_equal(found >> 8, shown) else shown


def _upright(pixels: Array, orientation: int) -> Array:  # [h, w, channels] as stored
    """As EXIF has a picture shown, of what was read without Pillow."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = 1 if orientation in (1, 2, 5, 6) else -1, 1 if orientation in (1, 4, 5, 8) else -1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _mode(file: Path) -> str | None:
    """What Pillow is to convert a picture into: inks are no colors and alpha, and a palette may hide alpha. None: nothing."""
    with Image.open(file) as opened:
        if opened.mode in ("CMYK", "YCbCr", "LAB"):
            return "RGB"
        return "RGBA" if "transparency" in opened.info and opened.mode in ("P", "L", "RGB") else None


def read_small_jpeg(file: Path, part: int) -> Array:
    """As `read_image`, of a half, a quarter or an eighth of the rows and columns: the least that is not less than 1 / `part`.

    The decoder leaves out most of its work, and what comes is the mean of the pixels that are left out (libjpeg's jidctred.c),
    rounded before colors are made of it: half a level of 255.
    """
    image_size(file)
    with _complaints_about(file), Image.open(file) as opened:
        opened.draft(None, (opened.width // part, opened.height // part))
        found = np.asarray(ImageOps.exif_transpose(opened).convert(_mode(file)))
    return found[..., None] if found.ndim == 2 else found


def _part_for(file: Path, size: Array) -> int:  # [2]
    """How far a JPEG that is shrunk to `size` may be shrunk while it is decoded: 4, 2 or 1, as 8 has means that are a fifth of a
    level too light. At least 2 x 2 of its pixels are left to each average, which takes most of their rounding away, and the
    decoder's blocks have to cover the picture evenly."""
    stored = sorted(stored_size(file)[0])  # whichever way it is turned
    most = min(side // max(1, 2 * int(wanted)) for side, wanted in zip(stored, sorted(size), strict=True))
    return next(part for part in (4, 2, 1) if part <= max(1, most) and not any(side % part for side in stored))


def _read_array(file: Path) -> Array:
    """A depth map or mask that is a NumPy file: mapped, so that what its header claims is checked against the file's size."""
    with _complaints_about(file):
        found: Array = np.lib.format.open_memmap(file, mode="r")
    if found.ndim not in (2, 3) or not 0 < found.size <= 4 * LARGEST_IMAGE:
        raise SceneError(file, "expected an array of height x width or height x width x channels")
    return found


class Images:
    """A sequence of pictures, read when indexed. `images[i]` is [height, width, channels] in the file's own type."""

    def __init__(
        self,
        files: Sequence[Path | None],
        sizes: Array | None = None,
        cache_bytes: int = CACHE_BYTES,
        arrays: list[Array] | None = None,
        turns: Sequence[int] = (),
    ):
        """`sizes` [n, 2] (width, height) is what pictures are shrunk to; None keeps the files'. `arrays`: already in memory.
        `turns`: clockwise quarter turns of each after it was read; empty for none.

        Where a file is None the picture is white, at the size given: a mask that hides nothing.
        """
        self.files = files
        self.arrays = arrays
        self.turns = turns
        self.sizes = sizes
        self.cache_bytes = cache_bytes
        self._kept: OrderedDict[int, Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process, or a copy, go the files: what was read of them can be read again."""
        return Images, (self.files, self.sizes, self.cache_bytes, self.arrays, self.turns)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Array:
        with self._lock:
            if i in self._kept:
                self._kept.move_to_end(i)
                return self._kept[i]
        found = self._read(i)
        if self.sizes is not None:
            found = shrink(found, int(self.sizes[i, 0]), int(self.sizes[i, 1]))
        found.flags.writeable = False
        with self._lock:
            if i not in self._kept and found.nbytes <= self.cache_bytes:
                self._kept[i] = found
                self._bytes += found.nbytes
                while self._bytes > self.cache_bytes:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    def _read(self, i: int) -> Array:
        if self.arrays is not None:
            return self.arrays[i].view()
        file = self.files[i]
        if file is not None:
            part = _part_for(file, self.sizes[i]) if self.sizes is not None and _is_jpeg(file) else 1
            found = read_small_jpeg(file, part) if part > 1 else read_image(file)
            return np.rot90(found, -self.turns[i]) if self.turns else found
        assert self.sizes is not None, "a white picture needs a size"
        return np.full((int(self.sizes[i, 1]), int(self.sizes[i, 0]), 1), 255, np.uint8)

    def small(self, i: int, side: int) -> Array:
        """The picture, or if that is quicker one of fewer pixels, with `side` along its longer side at least. Not kept."""
        file, kept = self.files[i], self._kept.get(i)
        if kept is not None:
            return kept
        if self.arrays is not None or file is None or not _is_jpeg(file):
            return self.unkept()[i]
        return read_small_jpeg(file, max(1, max(image_size(file)) // side))

    def unkept(self) -> "Images":
        """The same pictures for who looks at each once: kept, they would fill memory with what nobody asks for again."""
        return Images(self.files, self.sizes, 0, self.arrays, self.turns)

    def subset(self, index: Array) -> "Images":
        sizes = None if self.sizes is None else self.sizes[index]
        arrays = None if self.arrays is None else [self.arrays[int(i)] for i in index]
        turns = [self.turns[int(i)] for i in index] if self.turns else ()
        return Images([self.files[int(i)] for i in index], sizes, self.cache_bytes, arrays, turns)


def _is_jpeg(file: Path) -> bool:
    return file.suffix.lower() in (".jpg", ".jpeg")


def _is_pillow(file: Path) -> bool:
    return file.suffix.lower() not in (".exr", ".hdr")


def _plugin(file: Path) -> dict[str, str]:
    return {"plugin": "pillow"} if _is_pillow(file) else {}


def first_readable(images: Images) -> Array:
    """The first picture that is not damaged: how many channels it has says what sort of pictures a scene has."""
    for i in range(len(images) - 1):
        with contextlib.suppress(SceneError):
            return images[i]
    return images[len(images) - 1]


def has_alpha(files: Sequence[Path]) -> bool:
    return bool(first_readable(Images(files)).shape[2] == 4)


class _complaints_about:
    """Whatever a decoder raises or warns of becomes one `SceneError` that names the file."""

    def __init__(self, file: Path):
        self.file = file
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._warnings.__exit__(kind, error, trace)
        if not isinstance(error, Exception) or isinstance(error, SceneError | MemoryError):  # nor Ctrl-C, nor SIGTERM's exit
            return
        if not self.file.is_file():
            raise SceneError(self.file, "is a folder, not a file" if self.file.is_dir() else "no such file") from None
        if isinstance(error, PermissionError):
            raise SceneError(self.file, f"cannot be read: {error.strerror}") from None
        if not self.file.stat().st_size:
            raise SceneError(self.file, "is empty: a copy that was broken off?") from None
        if self.file.suffix.lower() in (".exr", ".hdr"):
            raise SceneError(self.file, "imageio needs a plugin to read this format: pip install imageio[freeimage]") from None
        raise SceneError(self.file, f"is no readable image: {_reason_of(error)}") from None


def _reason_of(error: BaseException) -> str:
    """What the decoder complains of: imageio says no more than that its plugin failed, and keeps why as the error's cause."""
    cause = error.__cause__
    if "`pillow`" in str(error) and cause is not None:
        error = cause
    if isinstance(error, UnidentifiedImageError) or isinstance(error.__context__, UnidentifiedImageError):
        return "its content is of no form that is known, whatever its name says"
    return one_line(error, 160) or type(error).__name__


def list_images(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order: r_2 before r_10."""
    found = [file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")]
    return sorted(found, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> list[tuple[int, float, str]]:
    """Sorts digits by value."""
    parts: list[tuple[int, float, str]] = []
    digits = ""
    for letter in name + "\0":
        if letter.isascii() and letter.isdigit():
            digits += letter
        else:
            if digits:
                parts.append((0, float(digits) if len(digits) < 300 else math.inf, digits))
                digits = ""
            parts.append((1, 0.0, letter))
    return parts
