"""The steps from pictures to a model, each on the files of a working folder. `photos.py` puts them together.

COLMAP works in a thread, in portions, so that progress shows between them and an interruption stops it. Its database is never
opened beside it: two SQLite libraries in one process spoil the file.
"""

import hashlib
import itertools
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from taichi_nerf.report import Report
from taichi_nerf.scenes.colmap_find import folders_in
from taichi_nerf.scenes.errors import SceneError
from taichi_nerf.scenes.images import list_images, read_image, stored_size
from taichi_nerf.scenes.unfinished import put_in_place
from taichi_nerf.scenes.video_frames import Frames, extract_frames, is_video
from taichi_nerf.scenes.write_png import write_png

MATCHINGS = ("auto", "exhaustive", "sequential")
MOST_FOR_EXHAUSTIVE = 150  # pictures: pairs grow with the square
NEIGHBOURS = (*range(1, 11), 16, 32, 64, 128, 256)  # distances in a sequence at which pictures are matched
NOT_READ = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2")
MIRRORED = (2, 4, 5, 7)  # EXIF orientations
SHARES = {"frames": (0.0, 0.1), "features": (0.1, 0.5), "matching": (0.5, 0.8), "mapping": (0.8, 0.98)}  # of the time, about
N_PORTIONS = 40  # of features and matches, between which progress is reported


class Steps:
    def __init__(self, pycolmap: Any, work: Path, report: Report, n_threads: int):
        self.pycolmap, self.work, self.report, self.n_threads = pycolmap, work, report, n_threads
        self.images, self.database = work / "images", work / "database.db"
        self.device = pycolmap.Device.cpu  # the packages that pip installs are built without CUDA
        self.names: list[str] = []
        self.unreadable: list[str] = []
        self.passed_over: list[str] = []  # sentences

    def gather(self, source: Path, n_frames: int) -> Frames | None:
        """The pictures, copied; of a video, its sharp frames."""
        self.images.mkdir()
        frames = None
        if is_video(source):
            frames = extract_frames(source, self.images, n_frames, self._progress("frames", "reading the video"))
            self.names = [file.name for file in frames.files]
        elif source.is_dir():
            files, repeats = apart_from_repeats(list_images(source))
            for file in files:
                self._copy(file)
            self.passed_over = [*repeats, *passed_over(source)]
        else:
            raise SceneError(
                source, "is neither a folder of pictures nor a video" if source.exists() else "no such file or folder"
            )
        if len(self.names) < 2:
            least = f"holds {len(self.names)} readable pictures; two are the least, twenty a good number"
            raise SceneError(source, "; ".join([least, *self.passed_over]))
        return frames

    def _copy(self, file: Path) -> None:
        """As it is; but a mirrored picture upright, for which no camera could stand, and a name without spaces, which end it in
        COLMAP's lists, and #, which begins a comment there."""
        name = "_".join(file.name.split()).replace("#", "_")
        while name in self.names:
            name = f"again_{name}"
        try:
            _, orientation = stored_size(file)
            if orientation in MIRRORED:
                name = f"{name}.png"
                write_png(self.images / name, read_image(file))
            else:
                shutil.copyfile(file, self.images / name)
            self.names.append(name)
        except SceneError:
            self.unreadable.append(file.name)

    def find_features(self, camera_model: str, max_image_size: int, max_features: int) -> None:
        options = self.pycolmap.FeatureExtractionOptions(max_image_size=max_image_size, num_threads=self.n_threads)
        options.sift.max_num_features = max_features

        def run(token: Any, done: list[int]) -> None:
            for group in self._groups():
                reader = self.pycolmap.ImageReaderOptions(camera_model=camera_model)
                for names in _portions(group, len(self.names)):
                    self.pycolmap.extract_features(
                        self.database,
                        self.images,
                        image_names=names,
                        camera_mode=self.pycolmap.CameraMode.SINGLE,
                        reader_options=reader,
                        extraction_options=options,
                        device=self.device,
                        cancellation_token=token,
                    )
                    reader.existing_camera_id = self._camera_of(names[0])  # the whole group's
                    done[0] += len(names)

        self._watched(run, "features", "finding features", len(self.names))

    def _groups(self) -> list[list[str]]:
        """Pictures that one lens took, as far as can be told: of one size, camera and focal length."""
        groups = defaultdict(list)
        for name in self.names:
            bitmap = self.pycolmap.Bitmap.read(self.images / name, True)
            if bitmap is None:
                raise SceneError(name, "cannot be read by COLMAP; save it as JPEG or PNG")
            groups[bitmap.width, bitmap.height, bitmap.exif_camera_model(), bitmap.exif_focal_length()].append(name)
        return list(groups.values())

    def _camera_of(self, name: str) -> int:
        with closing(self.pycolmap.Database.open(self.database)) as opened:
            return int(opened.read_image_with_name(name).camera_id)

    def match(self, matching: str, sequence: bool) -> None:
        options = self.pycolmap.FeatureMatchingOptions(num_threads=self.n_threads)
        if matching == "auto":
            matching = "sequential" if sequence or len(self.names) > MOST_FOR_EXHAUSTIVE else "exhaustive"
        n, listed = len(self.names), self.work / "pairs.txt"
        pairs = list(itertools.combinations(range(n), 2))
        if matching == "sequential":
            pairs = [(i, i + step) for i in range(n) for step in NEIGHBOURS if i + step < n]

        def run(token: Any, done: list[int]) -> None:
            for portion in _portions(pairs, len(pairs)):
                listed.write_text("".join(f"{self.names[i]} {self.names[j]}\n" for i, j in portion), encoding="utf-8")
                pairing = self.pycolmap.ImportedPairingOptions(match_list_path=listed)
                self.pycolmap.match_image_pairs(self.database, options, pairing, device=self.device, cancellation_token=token)
                done[0] += len(portion)
            self._estimate_focal_lengths()

        self._watched(run, "matching", f"matching pairs ({matching})", len(pairs))

    def _estimate_focal_lengths(self) -> None:
        """From the pairs, where EXIF does not state them: a guess that is far off keeps the first pair from being found.

        On a copy of the database: the estimation also discards matches that disagree with it, and it is rough.
        """
        cameras = self._cameras(self.database)
        if all(camera.has_prior_focal_length for camera in cameras.values()):
            return
        copy = Path(shutil.copyfile(self.database, self.work / "calibration.db"))
        self.pycolmap.calibrate_view_graph(copy)
        estimated = self._cameras(copy)
        with closing(self.pycolmap.Database.open(self.database)) as opened:
            for number, camera in cameras.items():
                if not camera.has_prior_focal_length and estimated[number].has_prior_focal_length:
                    opened.update_camera(estimated[number])

    def _cameras(self, database: Path) -> dict[int, Any]:
        with closing(self.pycolmap.Database.open(database)) as opened:
            return {camera.camera_id: camera for camera in opened.read_all_cameras()}

    def map(self, seed: int) -> list[Any]:
        """The models that the pictures fall apart into."""
        options = self.pycolmap.IncrementalPipelineOptions(num_threads=self.n_threads, random_seed=seed)
        options.min_model_size = min(10, max(2, len(self.names) // 4))
        options.max_num_models = 5
        out, found = self.work / "models", {}
        out.mkdir()

        def run(token: Any, done: list[int]) -> None:
            def next_image() -> None:
                done[0] += 1

            models = self.pycolmap.incremental_mapping(
                self.database, self.images, out, options, next_image_callback=next_image, cancellation_token=token
            )
            found.update(models)

        self._watched(run, "mapping", "placing pictures", len(self.names))
        return list(found.values())

    def write(self, model: Any, out: Path, undistort: bool) -> None:
        """images and sparse/0, complete, put in place by a renaming."""
        scene, sparse = self.work / "scene", self.work / "scene" / "sparse" / "0"
        sparse.mkdir(parents=True)
        model.write_binary(sparse)
        if undistort:
            flat = self.work / "undistorted"
            self._watched(lambda _token, _done: self.pycolmap.undistort_images(flat, sparse, self.images, jpeg_quality=95))
            shutil.rmtree(sparse)
            (flat / "sparse").rename(sparse)
            (flat / "images").rename(scene / "images")
        else:
            self.images.rename(scene / "images")
        put_in_place(scene, out)

    def _progress(self, step: str, text: str) -> Report:
        start, end = SHARES.get(step, (0.98, 1.0))
        return lambda fraction, detail: self.report(start + (end - start) * fraction, f"{text}: {detail}")

    def _watched(
        self, run: Callable[[Any, list[int]], None], step: str = "", text: str = "removing distortion", n: int = 1
    ) -> None:
        """A step in a thread of its own, given what cancels it and a counter of what is done, of n."""
        token, done, failures = self.pycolmap.CancellationToken(), [0], []

        def guarded() -> None:
            try:
                run(token, done)
            except BaseException as error:  # handed on below
                failures.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        progress = self._progress(step, text)
        thread.start()
        try:
            while thread.is_alive():
                progress(min(1.0, done[0] / n), f"{min(done[0], n)} of {n}")
                thread.join(0.5)
        except BaseException:
            token.cancel()
            thread.join()
            raise
        for error in failures:
            if isinstance(error, RuntimeError | ValueError | OSError | IndexError) and not isinstance(error, SceneError):
                said = " ".join(str(error).replace(f"{self.work}{os.sep}", "").split())[:200]
                raise SceneError("COLMAP", f"failed: {said}") from None
            raise error


def apart_from_repeats(files: list[Path]) -> tuple[list[Path], list[str]]:
    """Each content once, and what to tell: of a photo that is there twice one would be trained on and the other tested on."""
    first: dict[bytes, Path] = {}
    repeated = []
    for file in files:
        if first.setdefault(hashlib.sha256(file.read_bytes()).digest(), file) != file:
            repeated.append(file.name)
    told = [f"{len(repeated)} files repeat another and are left out (the first is {repeated[0]})"] if repeated else []
    return list(first.values()), told


def passed_over(folder: Path) -> list[str]:
    """What of a folder are photos and not taken."""
    told = []
    strange = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in NOT_READ and not file.name.startswith("."))
    if strange:
        told.append(f"{len(strange)} photos are of forms that are not read, save them as JPEG (the first is {strange[0]})")
    below = []
    for inner in folders_in(folder):
        with suppress(OSError):
            below += [f"{inner.name} ({n})"] if (n := len(list_images(inner))) else []
    if below:
        told.append(f"pictures in folders inside it are not taken: {', '.join(below)}")
    return told


def _portions(items: list[Any], n_in_all: int) -> Iterator[list[Any]]:
    size = max(4, n_in_all // N_PORTIONS)
    return (items[start : start + size] for start in range(0, len(items), size))
