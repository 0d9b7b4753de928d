"""Sharp frames of a video, evenly spread in time: the sharpest of each stretch, none much more blurred than the others."""

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import imageio.v3 as imageio
import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np

from taichi_nerf.report import Report
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import LARGEST_IMAGE, Array, shrink

EXTENSIONS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
LOOKED_AT = 5  # frames of each stretch whose sharpness is measured
MEASURED_WIDTH = 480  # pixels: motion blur still shows, sensor noise no longer does
LEAST_SHARPNESS = 0.3  # of the median of the frames around it


@dataclass(frozen=True)
class Frames:
    files: list[Path]
    n_blurred: int  # stretches of which even the sharpest frame was too blurred


def is_video(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in EXTENSIONS


def extract_frames(video: Path, out: Path, n_frames: int, report: Report) -> Frames:
    """Up to n_frames JPEGs out/frame_000123.jpg, numbered as in the video."""
    n_in_video = _count(video)
    stretch = max(1.0, n_in_video / n_frames)
    step = max(1, int(stretch // LOOKED_AT))
    best: dict[int, tuple[float, Path]] = {}
    out.mkdir(parents=True, exist_ok=True)
    n_seen = 0
    for i, frame in enumerate(_frames(video)):
        n_seen = i + 1
        if i % step:
            continue
        place, sharp = int(i / stretch), sharpness(frame)
        if place not in best or sharp > best[place][0]:
            if place in best:
                best[place][1].unlink()
            file = out / f"frame_{i:06d}.jpg"
            imageio.imwrite(file, frame, quality=95, plugin="pillow")
            best[place] = (sharp, file)
        report(min(1.0, n_seen / n_in_video), f"frame {n_seen} of {n_in_video}")
    if not best:
        raise SceneError(video, "has no frames")
    kept = drop_blurred([best[place] for place in sorted(best)])
    for _, file in best.values():
        if file not in kept:
            file.unlink()
    return Frames(kept, len(best) - len(kept))


def drop_blurred(frames: list[tuple[float, Path]], around: int = 7) -> list[Path]:
    """Those not much less sharp than the frames before and after: what is in view changes sharpness too, but slowly."""
    values = np.array([sharp for sharp, _ in frames])
    usual = [np.median(values[max(0, i - around) : i + around + 1]) for i in range(len(values))]
    return [file for (sharp, file), level in zip(frames, usual, strict=True) if sharp >= LEAST_SHARPNESS * level]


def sharpness(image: Array) -> float:
    """Variance of the Laplacian of the gray values, at a size at which videos can be compared."""
    gray = image[..., :3].astype(np.float32).mean(-1)
    height, width = gray.shape
    if width > MEASURED_WIDTH:
        gray = shrink(gray[..., None], MEASURED_WIDTH, max(3, round(height * MEASURED_WIDTH / width)))[..., 0]
    if min(gray.shape) < 3:
        return 0.0
    middle = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * middle
    return float(laplacian.var())


def _count(video: Path) -> int:
    """How many frames it has; nothing is decoded for it."""
    try:
        return max(1, int(imageio_ffmpeg.count_frames_and_secs(str(video))[0]))
    except Exception as error:  # whatever imageio-ffmpeg raises on files that ffmpeg does not understand
        raise SceneError(video, f"is no readable video: {_last_line(str(error))}") from None


def _frames(video: Path) -> Iterator[Array]:
    """[height, width, 3] uint8, one by one, turned as the video asks to be shown."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-protocol_whitelist",
        "file,pipe",
    ]  # no playlist may lead elsewhere
    command += ["-i", f"file:{video}", "-map", "0:v:0", "-f", "image2pipe", "-c:v", "ppm", "-"]
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints) as process:
            assert process.stdout is not None
            try:
                frame = _portable_pixmap(process.stdout, video)
                found = frame is not None
                while frame is not None:
                    yield frame
                    frame = _portable_pixmap(process.stdout, video)
            finally:
                process.kill()
        complaints.seek(0)
        if not found:
            raise SceneError(video, f"has no readable frames: {_last_line(complaints.read().decode('utf-8', 'replace'))}")


def _portable_pixmap(stream: IO[bytes], video: Path) -> Array | None:
    """The next picture: lines "P6", "width height", "255", then the pixels. None at the end, or where it is cut off."""
    header = [stream.readline(64) for _ in range(3)]
    if not header[2].endswith(b"\n"):
        return None
    width, height = map(int, header[1].split())
    if width * height > LARGEST_IMAGE:
        raise SceneError(video, f"is {width} x {height} pixels, more than any camera takes")
    pixels = stream.read(3 * width * height)
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3) if len(pixels) == 3 * width * height else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-160:] if lines else "ffmpeg does not understand it"
