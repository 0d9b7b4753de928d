"""Frames to one place: an .mp4, a looping .gif, or a folder of numbered PNGs that can be continued.

    with open_frames("orbit.mp4", fps=30, about={"what": "color"}) as frames:
        for i in frames.missing(n_frames):
            frames.add(render(i), i)

A video lies under a hidden name until it is complete: whatever ends the block early leaves neither half a video nor that name.
Every PNG is whole or not there, so a folder keeps what was rendered, and `missing` tells what is left. What the frames are of,
`about`, lies beside them in frames.json: a folder is never continued with frames of something else.
"""

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

from taichi_nerf.choices import LARGEST_RATE, LEAST_RATE
from taichi_nerf.export.colors import pad_to_even
from taichi_nerf.export.encoder import Encoder
from taichi_nerf.export.files import ExportError, expect_writable, os_errors_named, whole_file, write_png, write_whole
from taichi_nerf.report import Report, silent

Array = NDArray[Any]
ABOUT = "frames.json"  # beside the frames of a folder
MEND = "remove them, or choose another --out"
FASTEST_GIF = 50.0  # frames a second: viewers slow down delays of less than two hundredths
# Colors by BT.709 and marked so, or players guess; 4:2:0, which all of them show; playable while it loads.
BT709 = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p,"
BT709 += "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
H264 = ["-vf", BT709, "-c:v", "libx264", "-preset", "medium", "-crf", "17", "-movflags", "+faststart", "-f", "mp4"]


class Frames(ABC):
    """Takes pictures [h, w, 3] uint8, all of one size."""

    def __init__(self, path: Path):
        self.path = path
        self._size: tuple[int, ...] | None = None  # height, width of all frames

    def add(self, picture: Array, number: int | None = None) -> None:
        """The next frame, or the one of that number."""
        picture = np.asarray(picture)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise ValueError(f"picture: expected uint8 [h, w, 3], got {picture.dtype} {list(picture.shape)}; see to_bytes")
        if self._size is not None and self._size != picture.shape[:2]:
            sizes = [f"{width} x {height}" for height, width in (self._size, picture.shape[:2])]
            raise ExportError(self.path, f"its frames are of {sizes[0]} pixels, and one of {sizes[1]} was to join them")
        self._size = picture.shape[:2]
        self._add(picture, number)

    @abstractmethod
    def missing(self, n: int) -> list[int]:
        """Which of n frames are still to be added, in order."""

    @abstractmethod
    def _add(self, picture: Array, number: int | None) -> None: ...


def is_video(path: Path) -> bool:
    """Whether frames of that name become a video, which has a rate, and not PNGs in a folder."""
    return path.suffix.lower() in (".mp4", ".gif") and not path.is_dir()


def expect_frames(path: Path, fps: float = 30.0) -> None:
    """Refuse, before any work, a name or a rate that `open_frames` does not take, and a place where nothing can be written."""
    if not LEAST_RATE <= fps <= LARGEST_RATE:
        raise ValueError(f"fps: expected {LEAST_RATE:g} to {LARGEST_RATE:g} frames a second, got {fps:g}")
    suffix = path.suffix.lower()
    if suffix not in (".mp4", ".gif", "") and not path.is_dir():
        raise ExportError(path, "expected a name that ends in .mp4 or .gif, or one without an ending, for a folder of PNGs")
    if suffix == ".gif" and not path.is_dir() and fps > FASTEST_GIF:
        raise ValueError(f"fps: a .gif shows at most {FASTEST_GIF:g} frames a second, got {fps:g}; write an .mp4")
    if not suffix and path.is_file():
        raise ExportError(path, "is a file, and a folder was to be written")
    expect_writable(path)


@contextmanager
def open_frames(
    path: Path | str,
    fps: float = 30.0,
    about: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Iterator[Frames]:
    """By the name's ending: .mp4 (H.264 that plays everywhere), .gif, or none, for a folder of PNGs.

    `about`: what the frames are of, in values of JSON; a folder whose frames are of something else is refused. `report` is told
    how far a .gif is, which is written when the last frame is there: of large ones that takes minutes.
    """
    path = Path(path)
    expect_frames(path, fps)
    suffix = path.suffix.lower()
    if path.is_dir() or not suffix:
        yield FrameFolder(path, about)
    elif suffix == ".mp4":
        with whole_file(path) as unfinished, _stream(path, fps, [*H264, f"file:{unfinished}"], pad_to_even) as stream:
            yield stream
    else:
        with whole_file(path) as unfinished, _folder_beside(path) as folder:
            with _stream(path, fps, ["-c:v", "ffv1", f"file:{folder}/frames.nut"]) as stream:
                yield stream
            _make_gif(path, folder, unfinished, stream.n_added, report)


def frames_in(folder: Path) -> list[Path]:
    """The numbered PNGs of a folder, in order."""
    return sorted(folder.glob("[0-9]" * 5 + ".png"))


def remove_frames(path: Path) -> None:
    """Those of a folder; a video is replaced as a whole."""
    if path.is_dir():
        for file in (*frames_in(path), path / ABOUT):
            file.unlink(missing_ok=True)


class FrameFolder(Frames):
    """Files 00000.png, 00001.png, … What is there already counts as added."""

    def __init__(self, path: Path, about: Mapping[str, Any] | None = None):
        super().__init__(path)
        self._about = about
        there = frames_in(path)
        if there:
            try:
                self._size = imageio.improps(there[0], plugin="pillow").shape[:2]
            except Exception:  # Pillow has errors of its own for broken files
                raise ExportError(there[0], "is no readable PNG; remove it to have it rendered again") from None
            self._refuse_others()

    def missing(self, n: int) -> list[int]:
        return [i for i in range(n) if not self._file(i).is_file()]

    def _file(self, number: int) -> Path:
        return self.path / f"{number:05d}.png"

    def _add(self, picture: Array, number: int | None) -> None:
        if number is None:
            number = next(i for i in range(10**6) if not self._file(i).is_file())
        if self._about is not None:  # before the first frame: other processes may be looking
            write_whole(self.path / ABOUT, json.dumps(self._about, indent=2).encode() + b"\n")
            self._about = None
        write_png(self._file(number), picture)

    def _refuse_others(self) -> None:
        """Frames of something else than `about` are no part of what is to be written."""
        if self._about is None:
            return
        try:
            told = json.loads((self.path / ABOUT).read_bytes())
        except (OSError, ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise ExportError(self.path, f"no {ABOUT} tells what its frames are of; {MEND}")
        wanted = json.loads(json.dumps(self._about))
        differ = [f"{key}: {told.get(key)} there, {value} now" for key, value in wanted.items() if told.get(key) != value]
        if differ:
            raise ExportError(self.path, f"holds other frames ({'; '.join(differ)}); {MEND}")


class Stream(Frames):
    """Frames in order, into a file that an ffmpeg writes. It starts with the first, whose size is that of the video."""

    def __init__(self, path: Path, fps: float, options: list[str], shape: Callable[[Array], Array]):
        super().__init__(path)
        self._fps, self._options, self._shape = fps, options, shape
        self._encoder: Encoder | None = None
        self.n_added = 0

    def missing(self, n: int) -> list[int]:
        return list(range(self.n_added, n))

    def _add(self, picture: Array, number: int | None) -> None:
        if number not in (None, self.n_added):
            raise ExportError(self.path, f"a video takes frames in order: expected number {self.n_added}, got {number}")
        frame = np.ascontiguousarray(self._shape(picture))
        if self._encoder is None:
            size = f"{frame.shape[1]}x{frame.shape[0]}"
            raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{self._fps:.10g}", "-i", "pipe:0", "-an"]
            self._encoder = Encoder(self.path, [*raw, *self._options])
        self._encoder.write(frame.data)
        self.n_added += 1

    def finish(self) -> None:
        if self._encoder is None:
            raise ExportError(self.path, "no frames were added")
        self._encoder.finish()

    def stop(self) -> None:
        if self._encoder is not None:
            self._encoder.stop()


@contextmanager
def _stream(path: Path, fps: float, options: list[str], shape: Callable[[Array], Array] = lambda p: p) -> Iterator[Stream]:
    stream = Stream(path, fps, options, shape)
    try:
        yield stream
        stream.finish()
    finally:
        stream.stop()


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    with os_errors_named(path):
        folder = tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


def _make_gif(path: Path, folder: Path, unfinished: Path, n: int, report: Report) -> None:
    """One palette for all frames, made from them all. They wait in a lossless file meanwhile, so memory holds none of them."""
    frames, palette = ["-i", f"file:{folder}/frames.nut"], f"file:{folder}/palette.png"
    make = ["-vf", "palettegen=reserve_transparent=0", "-frames:v", "1", "-update", "1", palette]
    use = ["-lavfi", "paletteuse=dither=sierra2_4a:diff_mode=rectangle", "-fps_mode", "passthrough", "-loop", "0", "-f", "gif"]
    report(0.0, f"palette of {n} frames")
    Encoder(path, [*frames, *make]).finish()
    write = [*frames, "-i", palette, *use, f"file:{unfinished}"]
    Encoder(path, write, lambda done: report(done / n, f"gif: frame {done} of {n}")).finish()
