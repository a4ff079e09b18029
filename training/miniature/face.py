"""The astronaut's face with a mouth that opens, closes, rounds and spreads.

The picture is scikit-image's `astronaut` (NASA, public domain). A smooth warp moves the lips and the jaw. The code
paints the inside of the mouth: the upper teeth of the picture, and darkness below them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from scripts.sample_clip import LANDMARKS

# MediaPipe mesh: from the left corner of the mouth to the right one
UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)

ZOOM = 2  # scale of the picture in which the mouth is painted
BOX = (140, 40, 320, 240)  # of the astronaut's head in the picture: left, top, right, bottom

WIDEST_PX = 15.0  # between the inner lips at opening 1, in pixels of the picture. The photograph shows 6.6
UPPER_SHARE = 0.2  # of the opening that the upper lip makes. The jaw makes the rest
UPPER_REACH_PX = 9.0  # above the upper lip. The warp ends below the nose
LIP_REACH_PX = 14.0  # below the lower lip. The skin here follows the lip, then the jaw
JAW_SHARE = 0.6  # how far the chin follows the lower lip
JAW_END_PX = (30.0, 62.0)  # below the mouth's axis. The warp fades out between these rows, from chin to collar
JAW_WIDTH = 2.3  # half the width of the jaw, in multiples of half the width of the mouth
TEETH_PX = 5.0
THROAT = np.array([52.0, 22.0, 24.0])  # RGB
TONGUE = np.array([120.0, 58.0, 60.0])


@dataclass(frozen=True)
class TalkingFace:
    """The picture, enlarged around the head, and the geometry of its mouth."""

    picture: np.ndarray

    @classmethod
    def load(cls) -> TalkingFace:
        from skimage.data import astronaut

        return cls(astronaut())

    @cached_property
    def landmarks(self) -> np.ndarray:
        """The 478 mesh points in pixels of the picture."""
        return np.array(json.loads(LANDMARKS.read_text(encoding="utf-8"))["landmarks_xy"])

    @cached_property
    def head(self) -> np.ndarray:
        """The head, enlarged: float32 (height, width, 3)."""
        left, top, right, bottom = BOX
        enlarged = cv2.resize(
            self.picture[top:bottom, left:right], None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC
        )
        return enlarged.astype(np.float32)

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Middle of the mouth, its direction, the direction of the chin, and half the mouth's width in pixels."""
        left, right = self.landmarks[UPPER_INNER_LIP[0]], self.landmarks[UPPER_INNER_LIP[-1]]
        half_width = float(np.linalg.norm(right - left)) / 2
        along = (right - left) / (2 * half_width)
        return (left + right) / 2, along, np.array([-along[1], along[0]]), half_width

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Every pixel of `head` in the mouth's coordinates: u in half widths, v in pixels of the picture."""
        middle, along, down, half_width = self.axes
        rows, columns = np.mgrid[: self.head.shape[0], : self.head.shape[1]].astype(np.float32)
        x, y = self._to_picture(columns, 0) - middle[0], self._to_picture(rows, 1) - middle[1]
        return (x * along[0] + y * along[1]) / half_width, x * down[0] + y * down[1]

    def inner_lip(self, points: tuple[int, ...], u: np.ndarray) -> np.ndarray:
        """v of a lip's inner edge at u. Beyond the corners it is constant."""
        middle, along, down, half_width = self.axes
        offsets = self.landmarks[list(points)] - middle
        edge_u, edge_v = offsets @ along / half_width, offsets @ down
        smooth = np.polynomial.Polynomial.fit(edge_u, edge_v, 4)
        return smooth(np.clip(u, -1, 1)).astype(np.float32)

    def speak(self, opening: float, spread: float = 0.0) -> np.ndarray:
        """The head with a moved mouth.

        Args:
            opening: 0 closed, 1 wide open. The photograph has about 0.44.
            spread: width of the mouth, relative to the photograph's: -0.2 is rounded, 0.1 is spread.

        Returns:
            float32, the shape of `head`.
        """
        u, v = self.grid
        wide = 1 + spread * np.exp(-((u / 1.5) ** 2) - ((v - 5) / 16) ** 2)
        u = u / wide
        upper, lower = self.inner_lip(UPPER_INNER_LIP, u), self.inner_lip(LOWER_INNER_LIP, u)
        gap = np.maximum(lower - upper, 0)
        line = upper + UPPER_SHARE * gap  # where the lips meet
        new_gap = opening * WIDEST_PX * gap / gap.max()
        new_upper, new_lower = line - UPPER_SHARE * new_gap, line + (1 - UPPER_SHARE) * new_gap
        above = (upper - new_upper) * fade((new_upper - v) / UPPER_REACH_PX)
        middle_move = float((1 - UPPER_SHARE) * (gap.max() - opening * WIDEST_PX))
        jaw = JAW_SHARE * middle_move * fade(np.abs(u) / JAW_WIDTH)
        follow = fade((v - new_lower) / LIP_REACH_PX)
        below = (follow * (lower - new_lower) + (1 - follow) * jaw) * fade((v - JAW_END_PX[0]) / np.ptp(JAW_END_PX))
        moved = self._sample(u, v + np.where(v < line, above, below))
        return self._paint_inside(moved, u, v, upper, gap, new_upper, new_lower)

    def _paint_inside(
        self,
        head: np.ndarray,
        u: np.ndarray,
        v: np.ndarray,
        upper: np.ndarray,
        gap: np.ndarray,
        new_upper: np.ndarray,
        new_lower: np.ndarray,
    ) -> np.ndarray:
        """Teeth under the upper lip, the tongue above the lower lip, and darkness between them."""
        depth, height = v - new_upper, new_lower - new_upper
        teeth = self._sample(u, upper + np.minimum(depth, 0.8 * gap))
        visible = smoothstep(1.2 * (np.minimum(TEETH_PX, 0.8 * gap) - depth) + 0.5) * smoothstep(4 * (1 - np.abs(u)))
        tongue = 0.8 * smoothstep((depth - 0.6 * height) / (0.4 * height + 0.1)) * smoothstep(2 - 2.5 * np.abs(u))
        inside = THROAT + tongue[..., None] * (TONGUE - THROAT)
        inside = inside + visible[..., None] * (teeth - inside)
        edge = smoothstep(depth / 1.2 + 0.5) * smoothstep((new_lower - v) / 1.2 + 0.5) * (np.abs(u) < 1)
        is_open = smoothstep(height / 1.5)
        return (head + (edge * is_open)[..., None] * (inside - head)).astype(np.float32)

    def _sample(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The head at the mouth's coordinates (u, v)."""
        middle, along, down, half_width = self.axes
        x = middle[0] + half_width * u * along[0] + v * down[0]
        y = middle[1] + half_width * u * along[1] + v * down[1]
        columns, rows = (ZOOM * (c - BOX[i] + 0.5) - 0.5 for i, c in enumerate((x, y)))
        return cv2.remap(
            self.head, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )

    @staticmethod
    def _to_picture(pixels: np.ndarray, axis: int) -> np.ndarray:
        """Columns (axis 0) or rows (axis 1) of the enlarged head in pixels of the picture."""
        return (pixels + 0.5) / ZOOM - 0.5 + BOX[axis]

    def head_matrix(self) -> np.ndarray:
        """(2, 3): pixels of the enlarged head to pixels of the picture."""
        shift = [0.5 / ZOOM - 0.5 + BOX[0], 0.5 / ZOOM - 0.5 + BOX[1]]
        return np.array([[1 / ZOOM, 0, shift[0]], [0, 1 / ZOOM, shift[1]]])


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def fade(x: np.ndarray) -> np.ndarray:
    """1 below 0, 0 above 1, smooth between."""
    return 1 - smoothstep(x)
