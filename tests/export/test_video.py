"""Videos, GIFs and folders of frames, read back by others; and what is left when writing them ends early."""

import os
import subprocess
import sys

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

from taichi_nerf.export.files import ExportError
from taichi_nerf.export.video import open_frames

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg, when it reads


def frame(i, height=64, width=96):
    """Smooth, and moving."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x + y * c) / 15 + i / 3) for c in range(3)]
    return np.rint(127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def write(path, n=12, fps=24.0, size=(64, 96)):
    with open_frames(path, fps) as frames:
        for i in frames.missing(n):
            frames.add(frame(i, *size), i)


@pytest.mark.parametrize(("fps", "size"), [(24, (64, 96)), (60, (63, 97)), (12.5, (2, 2)), (29.97, (1, 1))])
def test_an_mp4_has_the_size_count_and_rate_asked_for(tmp_path, size, fps):
    write(tmp_path / "a.mp4", 12, fps, size)
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    meta = imageio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p(tv, bt709")
    assert meta["size"] == even[::-1]
    assert meta["fps"] == pytest.approx(fps, abs=0.011)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "a.mp4"))
    assert count == 12
    assert seconds == pytest.approx(12 / fps, abs=0.02)


def test_an_mp4_shows_the_frames_in_order_and_in_their_colors(tmp_path):
    write(tmp_path / "a.mp4", 8, 24, (63, 97))
    found = imageio.imread(tmp_path / "a.mp4", plugin="FFMPEG").astype(int)
    for i in range(8):
        error = np.abs(found[i, :63, :97] - frame(i, 63, 97)).mean()
        assert error < 5.0  # 3.4 measured: strong colors share their chroma among four pixels
        assert error < np.abs(found[i, :63, :97] - frame(i + 1, 63, 97)).mean()
    assert np.abs(found[:, 63] - found[:, 62]).mean() < 3  # padded by the edge, not by black


def test_an_mp4_begins_with_its_index_so_it_plays_while_it_loads(tmp_path):
    write(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("fps", [24.0, 30.0, 50.0, 10.0])
def test_a_gif_loops_for_ever_at_the_rate_asked_for(tmp_path, fps):
    write(tmp_path / "a.gif", 30, fps, (63, 97))
    meta = imageio.immeta(tmp_path / "a.gif", plugin="pillow", index=0)
    assert meta["loop"] == 0
    assert imageio.improps(tmp_path / "a.gif", plugin="pillow").shape == (30, 63, 97, 3)
    delays = [imageio.immeta(tmp_path / "a.gif", plugin="pillow", index=i)["duration"] for i in range(30)]
    assert sum(delays) == pytest.approx(30_000 / fps, abs=11)
    assert max(delays) - min(delays) <= 10


def test_a_gif_has_a_palette_of_its_own_colors(tmp_path):
    write(tmp_path / "a.gif")
    found = imageio.imread(tmp_path / "a.gif", plugin="pillow").astype(int)
    assert np.mean([np.abs(found[i] - frame(i)).mean() for i in range(12)]) < 9  # 6.6 measured; 12.75 of 6 x 6 x 6 fixed colors
    assert np.abs((found - np.stack([frame(i) for i in range(12)])).mean()) < 1


def test_still_frames_are_all_there(tmp_path):
    for name in ("a.mp4", "a.gif"):
        with open_frames(tmp_path / name, 20) as frames:
            for _ in range(7):
                frames.add(frame(0))
    assert len(imageio.imread(tmp_path / "a.mp4", plugin="FFMPEG")) == 7
    delays = [imageio.immeta(tmp_path / "a.gif", plugin="pillow", index=i)["duration"] for i in range(7)]
    assert sum(delays) == 350


def test_a_gif_faster_than_viewers_show_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at most 50 frames a second, got 60; write an \.mp4"):
        write(tmp_path / "a.gif", fps=60)


def test_a_folder_holds_numbered_pngs_without_loss(tmp_path):
    write(tmp_path / "frames", 11, size=(63, 97))
    names = [file.name for file in sorted((tmp_path / "frames").iterdir())]
    assert names == [f"{i:05d}.png" for i in range(11)]
    assert all((imageio.imread(tmp_path / f"frames/{i:05d}.png") == frame(i, 63, 97)).all() for i in range(11))


def test_a_folder_goes_on_where_it_stopped(tmp_path):
    write(tmp_path / "frames", 5)
    (tmp_path / "frames/00002.png").unlink()
    (tmp_path / "frames/notes.txt").write_text("mine")
    with open_frames(tmp_path / "frames") as frames:
        assert frames.missing(7) == [2, 5, 6]
        frames.add(frame(2), 2)
        frames.add(frame(5))
        assert frames.missing(7) == [6]
    assert (imageio.imread(tmp_path / "frames/00005.png") == frame(5)).all()
    assert (tmp_path / "frames/notes.txt").read_text() == "mine"


def test_a_folder_is_continued_only_with_frames_of_the_same(tmp_path):
    def write_about(about):
        with open_frames(tmp_path / "frames", about=about) as frames:
            for i in frames.missing(3)[:2]:
                frames.add(frame(i), i)
        return len(list((tmp_path / "frames").glob("*.png")))

    assert write_about({"step": 3, "sizes": (1, 2)}) == 2
    assert write_about({"step": 3, "sizes": (1, 2)}) == 3
    with pytest.raises(ExportError, match=r"frames: holds other frames \(step: 3 there, 4 now\); remove them, or choose another"):
        write_about({"step": 4, "sizes": (1, 2)})
    (tmp_path / "frames/frames.json").unlink()
    with pytest.raises(ExportError, match=r"frames: no frames\.json tells what its frames are of; remove them"):
        write_about({"step": 3, "sizes": (1, 2)})


def test_a_folder_of_frames_of_another_size_is_not_continued(tmp_path):
    write(tmp_path / "frames", 2)
    with pytest.raises(ExportError, match=r"frames: its frames are of 96 x 64 pixels, and one of 97 x 63"):
        write(tmp_path / "frames", 3, size=(63, 97))


def test_a_broken_frame_of_others_is_named(tmp_path):
    (tmp_path / "00000.png").write_text("no picture")
    with pytest.raises(ExportError, match=r"00000\.png: is no readable PNG; remove it"):
        write(tmp_path, 2)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError, FileNotFoundError])
def test_what_ends_early_leaves_nothing_half_written(tmp_path, name, error):
    (tmp_path / "a.mp4").write_text("an older video")

    def interrupted():
        with open_frames(tmp_path / name) as frames:
            frames.add(frame(0))
            raise error("by the caller")

    with pytest.raises(error, match="by the caller"):
        interrupted()
    assert (tmp_path / "a.mp4").read_text() == "an older video"
    left = sorted(file.name for file in tmp_path.rglob("*"))
    assert left == (["00000.png", "a.mp4", "frames"] if name == "frames" else ["a.mp4"])


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_finished_video_leaves_nothing_beside_it_and_replaces_an_older_one(tmp_path, name):
    (tmp_path / name).write_text("old")
    write(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_size > 1000


def test_a_gif_tells_how_far_it_is_once_its_frames_are_there_and_can_be_stopped_then(tmp_path):
    """Its palette is made from all of them, so that it is written last: minutes, of many frames."""
    told = []

    def stop(done, text):
        told.append((done, text))
        if text.startswith("gif"):
            raise KeyboardInterrupt

    with open_frames(tmp_path / "a.gif", report=lambda *now: told.append(now)) as frames:
        for i in range(5):
            frames.add(frame(i))
        assert not told
    assert told[0] == (0.0, "palette of 5 frames")
    assert told[-1] == (1.0, "gif: frame 5 of 5")

    def write_stopped():
        with open_frames(tmp_path / "b.gif", report=stop) as frames:
            frames.add(frame(0))

    with pytest.raises(KeyboardInterrupt):
        write_stopped()
    assert [file.name for file in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_video_takes_frames_of_one_size_in_order(tmp_path, name):
    def add(*given):
        with open_frames(tmp_path / name) as frames:
            for picture, number in given:
                frames.add(picture, number)
                assert frames.missing(3) == list(range(number + 1, 3))

    with pytest.raises(ExportError, match="expected number 1, got 3"):
        add((frame(0), 0), (frame(3), 3))
    with pytest.raises(ExportError, match="of 96 x 64 pixels, and one of 20 x 10"):
        add((frame(0), 0), (frame(1, 10, 20), 1))
    with pytest.raises(ExportError, match="no frames were added"), open_frames(tmp_path / name):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_no_picture_is_refused(tmp_path):
    with open_frames(tmp_path / "frames") as frames:
        for picture in (np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
            with pytest.raises(ValueError, match=r"expected uint8 \[h, w, 3\]"):
                frames.add(picture)


def test_names_and_rates_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"a\.avi: expected a name that ends in \.mp4 or \.gif"):
        write(tmp_path / "a.avi")
    for fps in (0, -1, 1e-9, 2000, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"fps: expected 0\.01 to 1000 frames a second"):
            write(tmp_path / "a.mp4", fps=fps)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="file: is a file, and a folder was to be written"):
        write(tmp_path / "file")
    (tmp_path / "file.mp4").mkdir()
    write(tmp_path / "file.mp4", 2)  # a folder is a folder whatever it is called
    assert (tmp_path / "file.mp4/00001.png").is_file()


def test_a_path_through_a_file_is_one_line_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("a.mp4", "a.gif", "frames"):
        with pytest.raises(
            ExportError, match=rf"file/{name}.*cannot be written: (.*file is a file, not a folder|Not a directory)"
        ) as caught:
            write(tmp_path / "file" / name)
        assert "\n" not in str(caught.value)


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from pathlib import Path
from taichi_nerf.export.video import open_frames
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the nearest to a full disk that needs no rights
noise = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3)).astype(np.uint8)
try:
    with open_frames(Path(sys.argv[1])) as frames:
        for picture in noise:
            frames.add(picture)
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_no_space_is_one_line_that_names_the_path_and_leaves_nothing(tmp_path, name):
    place = tmp_path / name
    done = subprocess.run([sys.executable, "-c", FULL, place, ""], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith(str(place))
    assert "cannot be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert [file.name for file in tmp_path.rglob("*")] == (["frames"] if name == "frames" else [])


def test_on_windows_too_ctrl_c_is_not_ffmpegs_to_answer(tmp_path, monkeypatch):
    """There it goes to all processes of the console's group, and the video's end was told as ffmpeg's failure."""
    given, popen = {}, subprocess.Popen

    def start(command, **options):
        given.update(options)
        return popen(command, **options | {"creationflags": 0})

    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(subprocess, "Popen", start)
    write(tmp_path / "a.mp4", 2)
    assert given["creationflags"] == 512
