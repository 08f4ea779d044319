"""Faces by MediaPipe's mesh of 478 landmarks: head pose, and what eyes, brows and mouth do."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from equipoise.features.face_geometry import PLACE, POINTS, SHAPE, describe_face
from equipoise.features.face_stream import PRESENCE, Row, face_stream
from equipoise.features.local_models import model_settings
from equipoise.features.stream import FeatureStream

if TYPE_CHECKING:
    from equipoise.features.clip import Clip, Picture

LONGEST_SIDE = 640  # pixels of the pictures that are searched
_BLENDSHAPES = "face_blendshapes.tflite"  # in the models that have them

# The landmarks ``[478, 3]`` as fractions of the picture, and the blendshapes' scores by name; None without a face.
Found = tuple[npt.NDArray[np.float64], dict[str, float]] | None
Find = Callable[["Picture"], Found]


class FaceMesh:
    """A face's place, head pose and the shape of its parts, 30 numbers a picture.

    The columns are ``presence`` and those of `equipoise.features.face_geometry.describe_face`. A model of MediaPipe's
    Tasks that has blendshapes adds their 52 scores. One face is followed; of several, MediaPipe chooses. Landmarks are
    smoothed from picture to picture by MediaPipe itself.

    The model is that of Kartynnik et al., Real-time facial surface geometry from monocular video on mobile GPUs (2019),
    with lips, eyes and irises refined as in Grishchenko et al., Attention mesh (2020).

    Args:
        rate: pictures a second.
        path: a face landmarker of MediaPipe Tasks (``face_landmarker.task``); None for the model within the wheel.

    Raises:
        ValueError: a rate that is not in (0, 240], or a file that is no such model.
        FileNotFoundError: no such model.
        ModuleNotFoundError: the extra ``faces`` is not installed.
    """

    modality = "vision"

    def __init__(self, *, rate: float = 25.0, path: str | None = None) -> None:
        if not 0 < rate <= 240:
            raise ValueError(f"Parameter `rate` should be above 0 and at most 240. Found `rate = {rate}`.")
        try:
            self._version = version("mediapipe")
        except PackageNotFoundError:
            raise ModuleNotFoundError(
                'MediaPipe is not installed: pip install "equipoise[faces]", best into an environment of its own '
                "(it needs numpy below 2)."
            ) from None
        self._rate, self._path = float(rate), path
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"There is no face landmarker at {path}.")
        self._model = model_settings(path)
        self._shapes = () if path is None or not _has_blendshapes(path) else blendshape_names()
        self.columns = (PRESENCE, *PLACE, *SHAPE, *self._shapes)

    def settings(self) -> dict[str, Any]:
        """See :class:`equipoise.features.stream.Extractor`."""
        arguments = {"rate": self._rate}
        return {
            "name": "face-mesh",
            "arguments": arguments,
            "version": 1,
            "mediapipe": self._version,
            **self._model,
        }

    def extract(self, clip: Clip) -> FeatureStream:
        """See :class:`equipoise.features.stream.Extractor`."""
        return face_stream(clip, self._rows(clip), len(self.columns), self._rate)

    def _rows(self, clip: Clip) -> Iterator[tuple[float, Row | None]]:
        with _quiet(), _wheel_model() if self._path is None else _task_model(self._path) as find:
            for picture in clip.pictures(self._rate, longest_side=LONGEST_SIDE):
                found = find(picture)
                if found is None:
                    yield picture.time, None
                    continue
                height, width = picture.image.shape[:2]
                # Depth is on the scale of the width.
                row = describe_face(found[0] * [width, height, width], width, height)
                shapes = [found[1].get(name, 0.0) for name in self._shapes]
                yield picture.time, np.concatenate([row, np.array(shapes, np.float32)])


def blendshape_names() -> tuple[str, ...]:
    """The 52 blendshapes of MediaPipe's face landmarker, those of ARKit but for the tongue, and the neutral face."""
    from mediapipe.tasks.python.vision.face_landmarker import Blendshapes

    return tuple(str(shape.name).lower() for shape in Blendshapes)


@contextmanager
def _wheel_model() -> Iterator[Find]:
    from mediapipe.python.solutions.face_mesh import FaceMesh as Mesh

    with Mesh(static_image_mode=False, max_num_faces=1, refine_landmarks=True) as mesh:

        def find(picture: Picture) -> Found:
            faces = mesh.process(picture.image).multi_face_landmarks
            return (_array(faces[0].landmark), {}) if faces else None

        yield find


@contextmanager
def _task_model(path: str) -> Iterator[Find]:
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=path),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=_has_blendshapes(path),
    )
    try:
        landmarker: AbstractContextManager[Any] = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} is no face landmarker that MediaPipe can load: {str(error).splitlines()[0]}"
        ) from None
    with landmarker as model:

        def find(picture: Picture) -> Found:
            image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(picture.image))
            result = model.detect_for_video(image, round(picture.time * 1000))
            if not result.face_landmarks:
                return None
            shapes = result.face_blendshapes[0] if result.face_blendshapes else []
            return _array(result.face_landmarks[0]), {_snake(shape.category_name): shape.score for shape in shapes}

        yield find


def _array(landmarks: Any) -> npt.NDArray[np.float64]:
    points = np.array([(point.x, point.y, point.z) for point in landmarks], np.float64)
    if len(points) != POINTS:
        raise ValueError(f"The face landmarker should give {POINTS} points with irises. Found {len(points)}.")
    return points


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _has_blendshapes(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as bundle:
            return _BLENDSHAPES in bundle.namelist()
    except zipfile.BadZipFile:
        raise ValueError(f"{path} is no model of MediaPipe Tasks (face_landmarker.task).") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """MediaPipe's C++ says much on stderr that is nobody's fault, and its Python warns of what it itself calls."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"google\.protobuf.*")
        yield
