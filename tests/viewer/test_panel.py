"""The controls of one browser, worked by a page that is a websocket here: viser's server and the panel are the real ones."""

import contextlib
import queue
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from taichi_nerf.camera_path import read_camera_path
from taichi_nerf.export.files import write_png
from taichi_nerf.hotswap import GradientError, gradient_table
from taichi_nerf.viewer import panel as panel_module
from taichi_nerf.viewer.eye import Eye
from taichi_nerf.viewer.looks import Part
from taichi_nerf.viewer.numbered_files import NumberedFiles
from taichi_nerf.viewer.panel import HEIGHTS, RATES, Panel
from taichi_nerf.viewer.server import start_server
from taichi_nerf.viewer.viewer import as_markdown_table

viser = pytest.importorskip("viser", reason="viser is not installed (pip install 'viser>=1.1,<2')")
msgspec = pytest.importorskip("msgspec")  # viser's own way of packing messages
pytestmark = pytest.mark.filterwarnings("ignore")  # of viser's server, which ends with the test

EYE = Eye.of([0, 0, 3], [0, 1, 0, 0], 0.8, 1.5)
STAGE = SimpleNamespace(has_points=False, close=lambda: None, show_points=print, show_cameras=print, show_path=lambda *_: None)
PICTURE = Part(np.full((96, 144, 3), 7, np.uint8), np.ones((96, 144)))
PATIENCE = 30  # seconds


class Studio:
    """Takes wishes."""

    def __init__(self):
        self.wishes = queue.Queue()

    def open(self, key, send, tell):
        pass

    def close(self, key):
        pass

    def wish(self, key, wish):
        self.wishes.put(wish)


class Page:
    def __init__(self, folder):
        from websockets.sync.client import connect

        self.studio, self._came = Studio(), queue.Queue()
        self._server, url = start_server("127.0.0.1", 0, None, "x")

        @self._server.on_client_connect
        def _(client):
            box = np.array([[-1.0] * 3, [1.0] * 3])
            self._came.put(Panel(client, STAGE, self.studio, box, NumberedFiles(folder), 160, EYE))

        protocol = f"viser-v{viser.__version__}"
        self._socket = connect(
            url.replace("http", "ws").rstrip("/"), subprotocols=[protocol], proxy=None, max_size=None, ping_interval=None
        )

    def send(self, **message):
        self._socket.send(msgspec.msgpack.encode(message))

    def looks_from(self, x, height=100):
        """The camera of a window of 150 columns and so many rows."""
        self.send(
            type="ViewerCameraMessage", wxyz=[0.0, 1, 0, 0], position=[x, 0.0, 3.0], fov=0.8, near=0.1, far=100.0,
            image_width=150, image_height=height, look_at=[0.0] * 3, up_direction=[0.0, 0, 1],
        )  # fmt: skip

    def panel(self):
        return self._came.get(timeout=PATIENCE)

    def types(self, control, number):
        self.send(type="GuiUpdateMessage", uuid=control._impl.uuid, updates={"value": number})

    def wish(self):
        """The next that the studio hears of."""
        return self.studio.wishes.get(timeout=PATIENCE)

    def close(self):
        self._socket.close()
        self._server.stop()


@pytest.fixture
def page(tmp_path):
    page = Page(tmp_path)
    yield page
    page.close()


def test_numbers_that_are_typed_beside_a_slider_are_taken_between_its_ends(page, tmp_path):
    """The box beside a slider sends what it says, digit by digit."""
    page.looks_from(0.0)
    panel = page.panel()
    assert page.wish().height == 160
    for typed, height in ((-5, HEIGHTS[0]), (10**9, HEIGHTS[1]), (0, HEIGHTS[0]), (512, 512)):
        page.types(panel._height, typed)
        assert page.wish().height == height
    for typed, rate in ((0, RATES[0]), (10**6, RATES[1]), (-3, RATES[0])):
        page.types(panel._rate, typed)
        assert page.wish().frames_per_second == rate


@pytest.mark.parametrize(("typed", "n_frames", "rate"), [(0, 1, 1), (-1, 1, 1), (10**9, 601, 60)])
def test_numbers_that_are_typed_for_a_path_are_taken_so_too(page, tmp_path, typed, n_frames, rate):
    page.looks_from(0.0)
    panel = page.panel()
    page.wish()
    panel.recorder.eyes = [EYE, Eye.of([1, 0, 3], [0, 1, 0, 0], 0.8, 1.5)]
    page.types(panel._seconds, typed)
    page.types(panel._fps, typed)
    page.types(panel._height, 64)  # messages are heard in their order, and this one is answered
    page.wish()
    panel.save_path()
    cameras, fps = read_camera_path(tmp_path / "camera_path_1.json")
    assert (len(cameras), fps) == (n_frames, rate)


def test_a_page_of_no_height_waits_until_it_has_one(page):
    page.looks_from(0.0, height=0)
    page.panel()
    assert page.studio.wishes.empty()
    page.looks_from(1.0)
    assert page.wish().eye.position == (1.0, 0.0, 3.0)


def test_what_was_chosen_last_is_what_is_wished_last(page):
    """viser calls back on many threads: one that is held up must not bring back what was chosen before."""
    page.looks_from(0.0)
    panel, entered, held, heard = page.panel(), threading.Event(), threading.Event(), queue.Queue()
    page.wish()

    def wish(key, wish):
        if wish.height == 200:
            entered.set()
            held.wait(PATIENCE)
        heard.put(wish.height)

    page.studio.wish = wish
    page.types(panel._height, 200)
    assert entered.wait(PATIENCE)
    panel._height.value = 208
    later = threading.Thread(target=panel._renew, args=(None,))
    later.start()
    later.join(0.3)  # if it can overtake, it does
    held.set()
    assert [heard.get(timeout=PATIENCE) for _ in range(2)] == [200, 208]


def test_the_size_stands_there_for_the_finished_picture_alone(page):
    page.looks_from(0.0)
    panel = page.panel()
    panel.take(PICTURE, page.wish(), True)
    assert panel._status.content == "144 × 96"
    page.types(panel._height, 200)
    panel_wish = page.wish()
    assert panel._status.content == "…"
    panel.take(PICTURE, panel_wish, True)
    assert panel._status.content == "144 × 96"


def test_screenshots_at_the_same_time_are_as_many_files(page, tmp_path, monkeypatch):
    """Two clicks, the second while the first one's file is being written."""
    page.looks_from(0.0)
    panel, writing = page.panel(), threading.Barrier(2)
    panel.take(PICTURE, page.wish(), True)

    def write(file, pixels):
        with contextlib.suppress(threading.BrokenBarrierError):
            writing.wait(0.5)  # for another one to write as well, if it may
        write_png(file, pixels)

    monkeypatch.setattr(panel_module, "write_png", write)
    clicks = [threading.Thread(target=panel.screenshot) for _ in range(2)]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join(PATIENCE)
    assert {file.name for file in tmp_path.iterdir()} == {"screenshot_1.png", "screenshot_2.png"}


def test_of_the_table_of_gradients_only_rows_are_rows():
    """Remarks above and below stand apart; a table of Markdown ends with an empty line."""
    rows = [GradientError("composite_rays", "density", 0.5, 1e-9)]
    *table, empty, above, gap, below = as_markdown_table(gradient_table("compositing", "vulkan", rows, ["a.b"])).splitlines()
    assert table == [
        "compositing on vulkan: largest error of each gradient, relative to its largest entry",
        "",
        "| example | argument | reference | differences |",
        "|---|---|--:|--:|",
        "| composite_rays | density | 5.0e-01 | 1.0e-09 |",
    ]
    assert (empty, above[:12], gap, below) == ("", "(in 32 bits,", "", "not launched here, so nothing is said of a.b")
