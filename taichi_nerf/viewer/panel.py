"""The controls of one browser: what it shows, how finely, its crop box, its camera path, its screenshots.

viser calls back from threads of its own. Nothing here renders: it changes wishes, and takes pictures that were made for them.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from taichi_nerf.export.files import write_png
from taichi_nerf.viewer.eye import WHAT, Eye, Wish
from taichi_nerf.viewer.looks import Part
from taichi_nerf.viewer.numbered_files import NumberedFiles
from taichi_nerf.viewer.path_recorder import PathRecorder
from taichi_nerf.viewer.poster import COME
from taichi_nerf.viewer.stage import Stage
from taichi_nerf.viewer.studio import Studio

HEIGHTS = (64, 1080, 512)  # least, most, at first
RATES = (1, 30, 8)  # frames a second


class Panel:
    def __init__(self, client: Any, stage: Stage, studio: Studio | None, box: Any, files: NumberedFiles, height: int, first: Eye):
        """`studio`: None where there is only a scene. `box`: [2, 3], of what a crop starts from.
        `first`: where the browser will look from, which it tells only after it has told of a place of its own.
        """
        self.client, self.stage, self.studio, self.files = client, stage, studio, files
        self.recorder = PathRecorder()
        self._lock = Lock()
        self._picture: Part | None = None  # the last
        self._wished: Wish | None = None
        self._is_finished, self._wants_screenshot, self._is_gone, self._has_come = False, False, False, False
        gui = client.gui
        self._status = gui.add_markdown("", order=0)
        self.height = height
        if studio is not None:
            self._show = gui.add_dropdown("Show", WHAT, initial_value="color", order=1)
            self._height = gui.add_slider("Resolution", HEIGHTS[0], HEIGHTS[1], 8, height, order=2,
                                          hint="rows of the finished picture")  # fmt: skip
            self._rate = gui.add_slider("Frames a second", RATES[0], RATES[1], 1, RATES[2], order=3,
                                        hint="while the camera moves: more of them are coarser")  # fmt: skip
            for control in (self._show, self._height, self._rate):
                control.on_update(self._renew)
        self._cameras = gui.add_checkbox("Cameras", True, order=4, hint="click one to look through it")
        self._cameras.on_update(lambda _: self._show_stage())
        self._points = gui.add_checkbox("Points", studio is None, order=5, visible=stage.has_points)
        self._points.on_update(lambda _: self._show_stage())
        if studio is not None:
            gui.add_button("Screenshot", order=6).on_click(lambda _: self.screenshot())
            self._add_crop(gui, np.asarray(box))
        self._add_path(gui)
        if studio is not None:
            studio.open(client.client_id, self.take, self.tell)
        client.camera.on_update(self._moved)
        eye = self.eye
        if eye is not None:
            self._wish(lambda: replace(first, aspect=eye.aspect))
        self._show_stage()

    def close(self) -> None:
        """The browser went away."""
        self._is_gone = True
        self.stage.close()
        if self.studio is not None:
            self.studio.close(self.client.client_id)

    @property
    def eye(self) -> Eye | None:
        camera = self.client.camera
        if camera.image_height <= 0:  # a page that is folded up
            return None
        return Eye.of(camera.position, camera.wxyz, camera.fov, camera.aspect)

    def take(self, part: Part, wish: Wish, finished: bool) -> None:
        """A picture is there; on the thread that renders."""
        if self._is_gone:
            return
        with self._lock:
            finished = finished and wish == self._wished
            self._picture, self._is_finished = part, finished
            saves = finished and self._wants_screenshot
            self._wants_screenshot = self._wants_screenshot and not finished
        self.client.scene.set_background_image(part.pixels, format="jpeg", jpeg_quality=95 if finished else 75, depth=part.depth)
        if not self._has_come:
            self._has_come = True
            self.client.gui.add_html(f'<i class="{COME}"></i>')
        self.client.flush()
        self._say(f"{part.pixels.shape[1]} × {part.pixels.shape[0]}" if finished else "…")
        if saves:
            self._save_screenshot(part)

    def tell(self, text: str) -> None:
        """What cannot be shown."""
        if text:
            self.client.add_notification("Not with this run", text, color="yellow", auto_close_seconds=8)

    def screenshot(self) -> None:
        """Of the finished picture: of this one, or of the next."""
        with self._lock:
            picture = self._picture if self._is_finished else None
            self._wants_screenshot = picture is None
        if picture is not None:
            self._save_screenshot(picture)

    def _save_screenshot(self, part: Part) -> None:
        self._saving(lambda: self.files.add("screenshot", ".png", lambda file: write_png(file, part.pixels)))

    def _saving(self, save: Callable[[], Path]) -> None:
        """Write a file here, and offer it to the browser."""
        try:
            file = save()
        except (OSError, ValueError) as error:
            self.client.add_notification("Not saved", str(error), color="red", auto_close_seconds=8)
            return
        self.client.add_notification("Saved", str(file), color="green", auto_close_seconds=10)
        self.client.send_file_download(file.name, file.read_bytes())

    def _add_crop(self, gui: Any, box: Any) -> None:
        with gui.add_folder("Crop box", order=7, expand_by_default=False):
            self._crops = gui.add_checkbox("Crop", False)
            step = float(np.round((box[1] - box[0]).max() / 100, 4)) or 0.01
            self._low = gui.add_vector3("Low corner", tuple(np.round(box[0], 3).tolist()), step=step)
            self._high = gui.add_vector3("High corner", tuple(np.round(box[1], 3).tolist()), step=step)
        for control in (self._crops, self._low, self._high):
            control.on_update(self._recrop)

    def _add_path(self, gui: Any) -> None:
        with gui.add_folder("Camera path", order=8, expand_by_default=False):
            self._n_keys = gui.add_markdown("no cameras yet")
            gui.add_button("Add this camera").on_click(lambda _: self._change_path("add"))
            gui.add_button("Remove the last").on_click(lambda _: self._change_path("remove"))
            self._seconds = gui.add_slider("Seconds between", 0.1, 10.0, 0.1, 2.0)
            self._fps = gui.add_slider("Frames per second", 1, 60, 1, 30)
            self._closed = gui.add_checkbox("Closed", False)
            self._closed.on_update(lambda _: self._change_path(""))
            gui.add_button("Save path").on_click(lambda _: self.save_path())

    def save_path(self) -> None:
        height = int(within(self._height)) if self.studio is not None else self.height
        settings = float(within(self._seconds)), float(within(self._fps)), height, bool(self._closed.value)
        self._saving(lambda: self.recorder.save(self.files, *settings))

    def _change_path(self, how: str) -> None:
        with self._lock:
            eye = self.eye
            if how == "add" and eye is not None:
                self.recorder.eyes.append(eye)
            elif how == "remove" and self.recorder.eyes:
                self.recorder.eyes.pop()
            eyes, way = list(self.recorder.eyes), self.recorder.way(bool(self._closed.value))
        self._n_keys.content = f"{len(eyes)} camera{'s' * (len(eyes) != 1)}" if eyes else "no cameras yet"
        self.stage.show_path(eyes, way)

    def _recrop(self, _: Any) -> None:
        box = self._box()
        self.stage.show_box(box)
        self._renew(None)

    def _box(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The crop box, its corners in order; None if it is off."""
        if self.studio is None or not self._crops.value:
            return None
        low, high = np.asarray(self._low.value, float), np.asarray(self._high.value, float)
        return tuple(np.minimum(low, high).tolist()), tuple(np.maximum(low, high).tolist())

    def _show_stage(self) -> None:
        self.stage.show_points(bool(self._points.value) and self.stage.has_points)
        self.stage.show_cameras(bool(self._cameras.value))

    async def _moved(self, _: Any) -> None:
        """On viser's own thread, so that no later place is overtaken by an earlier one."""
        self._renew(None)

    def _renew(self, _: Any) -> None:
        self._wish(lambda: self.eye)

    def _wish(self, place: Callable[[], Eye | None]) -> None:
        """Controls are read and told of in one go: of two callbacks at a time, the later one may be the first to have read."""
        if self.studio is None:
            return
        with self._lock:
            eye = place()
            if eye is None:
                return
            wish = Wish(eye, str(self._show.value), int(within(self._height)), float(within(self._rate)), self._box())
            if wish == self._wished:
                return
            self._wished, self._is_finished = wish, False
            self._say("…")  # a first picture of a kind may be compiled for seconds, and the last one stands there meanwhile
            self.studio.wish(self.client.client_id, wish)

    def _say(self, text: str) -> None:
        if self._status.content != text:
            self._status.content = text


def within(slider: Any) -> float:
    """Its value between its ends: the box beside a slider takes any number, and tells of each digit as it is typed."""
    return max(slider.min, min(slider.max, slider.value))
