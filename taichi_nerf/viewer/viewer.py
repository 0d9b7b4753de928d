"""The web viewer as a whole: a server, the controls of every browser, and the pictures, which `serve` makes on its own thread.

with Viewer(scene, place, model=run.model, background=1.0) as viewer:
    print(viewer.url)
    viewer.serve(stop)
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from taichi_nerf.live_kernels import LiveKernels, News, exits_as_errors
from taichi_nerf.scenes import SceneData
from taichi_nerf.training.model import Model
from taichi_nerf.viewer.looks import Looks
from taichi_nerf.viewer.numbered_files import NumberedFiles
from taichi_nerf.viewer.panel import HEIGHTS, Panel
from taichi_nerf.viewer.poster import ASPECT, ROWS, as_jpeg
from taichi_nerf.viewer.server import quiet, start_server
from taichi_nerf.viewer.stage import Stage, first_eye, frustum_size, overview
from taichi_nerf.viewer.studio import Studio
from taichi_nerf.viewer.thumbnails import Thumbnails

POLL = 0.1  # seconds between looks at kernel files and at whether to stop


@dataclass(frozen=True)
class Place:
    """Where the viewer listens, who may come in, and where its files go."""

    out: Path
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    height: int = HEIGHTS[2]  # rows of finished pictures, at first


class Viewer:
    def __init__(self, scene: SceneData, place: Place, model: Model | None = None, background: float = 1.0):
        """`model`: None shows the scene alone."""
        self.scene, self.place, self.model = scene, place, model
        self.studio = Studio(lambda: Looks(model, background, scene.bounds.unbounded)) if model is not None else None
        self.background = background
        self._files = NumberedFiles(place.out)
        self._panels: dict[int, Panel] = {}
        self._kernels: Any = None  # the text about kernels, once there is something to tell
        self._last_load = ""
        self._poster: bytes | None = None  # what the first eye sees, as a JPEG
        self._thumbnails = Thumbnails(scene)
        label = scene.folder.name or "taichi_nerf"
        self.server, self.url = start_server(place.host, place.port, place.token, label, lambda: self._poster)
        self._set_up()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with quiet():
            self.server.stop()

    def warm_up(self) -> None:
        """Compile what the first picture takes, and make the one that the page shows while it starts."""
        if self.model is not None:
            looks = Looks(self.model, self.background, self.scene.bounds.unbounded)
            first = first_eye(self.scene)[0]
            for hasty in (True, False):
                looks.rows(first.camera(64), 0, 64, hasty=hasty)
            self._poster = as_jpeg(looks.rows(replace(first, aspect=ASPECT).camera(ROWS), 0, ROWS).pixels)

    def serve(self, stop: Callable[[], bool], kernels: LiveKernels | None = None) -> None:
        """Render for whoever is there, until `stop()`."""
        if kernels is not None:
            self.listen_to(kernels)
        while not stop():
            if kernels is not None:
                self.follow_kernels(kernels)
            if not self.work(kernels) and self.studio is not None:
                self.studio.rest(POLL)
            elif self.studio is None:
                time.sleep(POLL)

    def work(self, kernels: LiveKernels | None = None) -> bool:
        """One piece of a picture. A kernel that fails is taken back, if kernels are watched."""
        if self.studio is None:
            return False
        try:
            with exits_as_errors():
                return self.studio.work()
        except Exception as error:
            if kernels is None or not kernels.failed(error):
                raise
            self.studio.again()
            return True

    def listen_to(self, kernels: LiveKernels) -> None:
        """Whoever was told of changes still is; the browsers are, too."""
        before = kernels.tell

        def tell(news: News) -> None:
            before(news)
            self.show_news(news)

        kernels.tell = tell

    def show_news(self, news: News) -> None:
        """What happened to the kernels, for every browser."""
        if self._kernels is None:
            with self.server.gui.add_folder("Kernels", order=20):
                self._kernels = self.server.gui.add_markdown("")
        if news.kind == "gradients":
            self._kernels.content = f"{self._last_load}\n\n{as_markdown_table(news.text)}"
            return
        word = {"loaded": "Loaded", "failed": "**Failed**"}[news.kind]
        self._last_load = f"{word}: {as_code(news.text)}"
        self._kernels.content = self._last_load
        color = "green" if news.kind == "loaded" else "red"
        for client in self.server.get_clients().values():
            client.add_notification(f"Kernel {news.kind}", news.text, color=color, auto_close_seconds=8)

    def follow_kernels(self, kernels: LiveKernels) -> None:
        """Kernels that were edited come in; gradients are checked when there is nothing to render."""
        if kernels.poll() and self.studio is not None:
            self._poster = None
            self.studio.again()
        elif kernels.has_to_check and (self.studio is None or not self.studio.is_busy()):
            kernels.check()

    def _set_up(self) -> None:
        server = self.server
        eye, target, up = overview(self.scene) if self.model is None else first_eye(self.scene)
        server.scene.set_up_direction(tuple(up.tolist()))
        first = server.initial_camera
        first.position, first.look_at, first.up, first.fov = eye.position, tuple(target.tolist()), tuple(up.tolist()), eye.fov_y
        first.near = 1.2 * frustum_size(self.scene.cameras)  # whoever looks through a camera does not see its thumbnail
        server.gui.configure_theme(show_share_button=False, show_logo=False, control_width="medium")
        server.scene.world_axes.visible = False
        server.on_client_connect(self._came)
        server.on_client_disconnect(self._went)

    def _came(self, client: Any) -> None:
        stage = Stage(client, self.scene, self._thumbnails)
        panel = Panel(client, stage, self.studio, self.scene.bounds.box, self._files, self.place.height, first_eye(self.scene)[0])
        self._panels[client.client_id] = panel
        if client.client_id not in self.server.get_clients():  # it went while it was being set up
            self._went(client)

    def _went(self, client: Any) -> None:
        panel = self._panels.pop(client.client_id, None)
        if panel is not None:
            panel.close()


def as_code(text: str) -> str:
    """Markdown that shows a text as it is."""
    return "\n```\n" + text.replace("```", "` ` `") + "\n```\n"


def as_markdown_table(text: str) -> str:
    """The table of `check_gradients`, which is made for terminals: columns are two spaces or more apart."""
    title, *lines = text.splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines]
    shown = ["| " + " | ".join(row) + " |" for row in rows if len(row) == 4]
    if not shown:
        return as_code(text)
    remarks = [remark for row in rows if len(row) != 4 for remark in ("", *row)]
    return "\n".join([title, "", shown[0], "|---|---|--:|--:|", *shown[1:], *remarks])
