"""MediaPipe's multi-class selfie segmenter: background, hair, body skin, face skin, clothes and others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError, cannot_import, reason_of
from ..weights.catalog import SELFIE_SEGMENTER
from .mediapipe_detector import MEDIAPIPE, import_mediapipe
from .warp import opencv

INPUT_PX = 256  # side of the network's input
CLASSES = 6
HAIR, FACE_SKIN = 1, 3  # the classes of a face. Beards are hair


class SelfieSegmenter:
    """Implements `segmenters.Segmenter`. All classes except hair and face skin can be in front of a face.

    Args:
        model: the file `selfie_multiclass_256x256.tflite`.

    Raises:
        DependencyError: MediaPipe cannot be imported.
        WeightsError: the model file is missing or unreadable. `score` raises this error for a file with other classes.
    """

    def __init__(self, model: Path) -> None:
        try:
            self._mediapipe: Any = import_mediapipe()
        except ImportError as error:
            raise cannot_import("MediaPipe", MEDIAPIPE, error, 'set "occlusion" to off') from error
        self._model = model
        tasks = self._mediapipe.tasks
        try:
            options = tasks.vision.ImageSegmenterOptions(
                # Pass bytes, because MediaPipe cannot open paths with characters outside the system's code page.
                base_options=tasks.BaseOptions(model_asset_buffer=model.read_bytes()),
                running_mode=tasks.vision.RunningMode.IMAGE,
                output_confidence_masks=True,
            )
            self._graph: Any = tasks.vision.ImageSegmenter.create_from_options(options)
        except (OSError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.filename is None:  # a system library is missing
                raise cannot_import("MediaPipe", MEDIAPIPE, error, 'set "occlusion" to off') from error
            raise WeightsError(
                f"{model} is not a valid image segmenter of MediaPipe ({reason_of(error)}). Delete this file and "
                f"download {SELFIE_SEGMENTER.url} ({SELFIE_SEGMENTER.size_bytes:,} bytes) to this path. You can "
                'also set "occlusion" to off.'
            ) from error

    def score(self, view: np.ndarray) -> np.ndarray:
        """See `segmenters.Segmenter.score`."""
        cv2 = opencv()
        pixels = cv2.resize(view, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels)
        masks = self._graph.segment(image).confidence_masks
        if len(masks) != CLASSES:
            raise WeightsError(
                f"{self._model} has {len(masks)} classes, but the multi-class selfie segmenter has {CLASSES}. Delete "
                f"this file and download {SELFIE_SEGMENTER.url} to this path."
            )
        face = sum(masks[i].numpy_view().reshape(INPUT_PX, INPUT_PX) for i in (HAIR, FACE_SKIN))
        score = np.clip(1 - np.asarray(face, np.float32), 0, 1)
        return cv2.resize(score, view.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def close(self) -> None:
        """Free MediaPipe's graph. A graph that is still open when Python exits prints a traceback."""
        self._graph.close()
