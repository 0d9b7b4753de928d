"""What stands around the radiance field: the scene's cameras with thumbnails, its points, the crop box, the camera path.

Cameras stand there at once; their thumbnails follow as files are read, which takes seconds for fifty photos.
"""

from threading import Thread
from typing import Any

import numpy as np

from taichi_nerf.cameras import Array, Cameras, focus_point, upward
from taichi_nerf.curves import quaternions
from taichi_nerf.scenes import SceneData
from taichi_nerf.viewer.eye import Eye, eye_of_view
from taichi_nerf.viewer.thumbnails import Thumbnails

MOST_FRUSTA, MOST_POINTS = 300, 200_000
FOV = 0.9  # radians, of an overview
TRAINING, TEST, KEY = (40, 90, 200), (230, 120, 20), (20, 160, 90)  # colors


def first_eye(scene: SceneData) -> tuple[Eye, Array, Array]:
    """Where a browser begins: the eye of the first training view, the place that it turns about, and which way is up."""
    cameras = scene.cameras
    view = int(scene.splits["train"][0]) if len(scene.splits.get("train", ())) else 0
    eye = eye_of_view(cameras, view)
    ahead = (focus_point(cameras.centers, cameras.forwards) - cameras.centers[view]) @ cameras.forwards[view]
    distance = ahead if ahead > 0 else 1.0
    return eye, cameras.centers[view] + distance * cameras.forwards[view], upward(cameras)


def overview(scene: SceneData) -> tuple[Eye, Array, Array]:
    """As `first_eye`, but from outside: all cameras and what they look at are in the picture."""
    cameras, (eye, _, up) = scene.cameras, first_eye(scene)
    middle = focus_point(cameras.centers, cameras.forwards)
    reach = float(np.linalg.norm(cameras.centers - middle, axis=-1).max()) or 1.0
    _, down, ahead = eye.pose[:, :3].T
    back = -ahead - (-ahead @ up) * up
    if np.linalg.norm(back) < 0.1:  # it looks straight down, or up
        back = (down - (down @ up) * up) * np.sign(-ahead @ up)
    back = back / np.linalg.norm(back) + 0.7 * up  # from a little above
    forward = -back / np.linalg.norm(back)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(forward, right), forward], -1)
    found = Eye.of(middle - reach / np.sin(FOV / 2) * forward, quaternions(turn[None])[0], FOV, eye.aspect)
    assert found is not None, "a scene's cameras are finite"
    return found, middle, up


def frustum_size(cameras: Cameras) -> float:
    """A share of how far the cameras are from what they look at, so that they do not hide it."""
    distances = np.linalg.norm(cameras.centers - focus_point(cameras.centers, cameras.forwards), axis=-1)
    return 0.06 * float(np.median(distances)) or 0.05


class Stage:
    """One browser's own: it may hide what others show."""

    def __init__(self, client: Any, scene: SceneData, thumbnails: Thumbnails):
        self._client, self._scene, self._thumbnails = client, scene, thumbnails
        self._size = frustum_size(scene.cameras)
        self._cameras: dict[int, Any] = {}  # by view
        self._is_gone = False
        self._points: Any = None
        self._box: Any = None
        self._keys: list[Any] = []

    @property
    def has_points(self) -> bool:
        return self._scene.points is not None

    def close(self) -> None:
        self._is_gone = True

    def show_cameras(self, shown: bool) -> None:
        if not shown:
            handles, self._cameras = self._cameras, {}
            for handle in handles.values():
                handle.remove()
            return
        if self._cameras:
            return
        cameras = {}
        for split, color in (("train", TRAINING), ("test", TEST)):
            views = [int(view) for view in self._scene.splits.get(split, ())]
            for view in views[:: max(1, -(-len(views) // MOST_FRUSTA))]:
                eye = eye_of_view(self._scene.cameras, view)
                handle = self._frustum(f"/cameras/{split}_{view}", eye, color)
                handle.on_click(lambda event, eye=eye: go_to(event.client or self._client, eye))
                cameras[view] = handle
        self._cameras = cameras
        Thread(target=self._fill, args=(cameras,), daemon=True).start()

    def _fill(self, cameras: dict[int, Any]) -> None:
        """Put thumbnails into these frusta, until they or the browser are gone."""
        for view, handle in cameras.items():
            picture = self._thumbnails[view]
            if self._is_gone or self._cameras is not cameras:
                return
            if picture is not None:
                handle.image = picture

    def show_points(self, shown: bool) -> None:
        points = self._scene.points
        if points is None:
            return
        if self._points is None:
            if not shown:
                return
            chosen = slice(None, None, max(1, -(-len(points.positions) // MOST_POINTS)))
            where, colors = points.positions[chosen], points.colors[chosen]
            size = 0.1 * self._size
            self._points = self._client.scene.add_point_cloud("/points", where.astype(np.float32), colors, point_size=size)
        self._points.visible = shown

    def show_box(self, box: Any) -> None:
        """The twelve edges of a box, or none."""
        if self._box is not None:
            self._box.remove()
            self._box = None
        if box is None:
            return
        corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, -1).T
        places = np.where(corners == 0, box[0], box[1])
        pairs = [(a, b) for a in range(8) for b in range(a) if np.abs(corners[a] - corners[b]).sum() == 1]
        edges = np.array([[places[a], places[b]] for a, b in pairs], np.float32)
        self._box = self._client.scene.add_line_segments(
            "/crop_box", edges, (200, 40, 40), thickness=0.05 * self._size, thickness_units="world"
        )

    def show_path(self, keys: list[Eye], way: Array) -> None:  # way [n, 3]
        for handle in self._keys:
            handle.remove()
        self._keys = [self._frustum(f"/path/{i}", eye, KEY) for i, eye in enumerate(keys)]
        if len(way) > 1:
            edges = np.stack([way[:-1], way[1:]], 1).astype(np.float32)
            line = self._client.scene.add_line_segments(
                "/path/way", edges, KEY, thickness=0.08 * self._size, thickness_units="world"
            )
            self._keys.append(line)

    def _frustum(self, name: str, eye: Eye, color: tuple[int, int, int]) -> Any:
        tangent = np.tan(eye.fov_y / 2)
        scale = self._size * np.cbrt(tangent * tangent * eye.aspect / 3)  # viser keeps volumes; this keeps lengths
        return self._client.scene.add_camera_frustum(
            name, eye.fov_y, eye.aspect, scale=scale, color=color, format="jpeg", cast_shadow=False,
            receive_shadow=False, thickness=0.03 * self._size, wxyz=eye.wxyz, position=eye.position,
        )  # fmt: skip


def go_to(client: Any, eye: Eye) -> None:
    """Put a browser's camera there, turning about as far a place as before."""
    distance = float(np.linalg.norm(np.asarray(client.camera.look_at) - client.camera.position)) or 1.0
    with client.atomic():
        client.camera.position = eye.position
        client.camera.look_at = np.array(eye.position) + distance * eye.pose[:, 2]
        client.camera.fov = eye.fov_y
