"""Match the sharpness and the grain of a pasted mouth to the skin above it.

The generated mouth is smoother than the original video, because the VAE blurs the mouth and does not add camera noise.
The module measures detail in two bands: second differences of the frame (fine), and of the frame at half size
(coarse). White noise has a fixed ratio of both bands, see `grain_band_ratio`. The rest of the coarse band is the
sharpness.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from ..faces.alignment import crop_size
from ..faces.warp import PixelBox, crop_bounds, is_empty, opencv, warp_to_box
from ..video.color import max_value
from .mouth_blend import mouth_weight

RING_WIDTH = 0.12  # in crop widths: skin is measured within this distance above the mouth mask
SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # 0 on gradients and straight edges
SMOOTH_SHARE = 0.75  # share of the measured pixels: those with the least detail. Lips, teeth and hair have edges
MAX_SHARPENING = 2.0  # factor for the mouth's detail
DETAIL_SIGMA_PX = 1.5  # structure finer than this is detail
LEAST_DETAIL = 0.3  # levels of 8 bits, standard deviation: weaker detail is rounding error
MAX_GRAIN = 16.0  # levels of 8 bits, standard deviation
SMOOTHING = 0.8  # weight of the previous frame's measurement
MIN_PIXELS = 200  # skin pixels and mouth pixels that a measurement needs
GRAIN_SIGMAS_PX = (0.0, 0.4, 0.5, 0.6, 0.8)  # blur of grain. Coarser grain looks like structure
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709


class Detail(NamedTuple):
    """Mean squared second differences of a region, in squared levels of 8 bits, at full and at half size."""

    fine: float
    coarse: float


class Texture(NamedTuple):
    """Texture correction of a mouth.

    sharpening: factor for the mouth's detail, 1 to MAX_SHARPENING.
    grain: standard deviation of the grain to add, in levels of 8 bits.
    grain_sigma_px: blur of white noise that gives the grain size of the original video.
    """

    sharpening: float
    grain: float
    grain_sigma_px: float

    def smoothed(self, previous: Texture | None) -> Texture:
        """Exponential moving average with the previous frame's texture. None starts a new average."""
        if previous is None:
            return self
        return Texture(*(SMOOTHING * old + (1 - SMOOTHING) * new for old, new in zip(previous, self, strict=True)))


class TextureMatcher:
    """Sharpens pasted mouths, and adds grain to them.

    Args:
        resolution: side of the square model crop in pixels.
        grow, feather: the edge of the mouth, see `mouth_weight`.
        seed: seed of the grain. Each frame has different grain.
    """

    def __init__(self, resolution: int, grow: float, feather: float, seed: int) -> None:
        cv2 = opencv()
        self._crop_size = crop_size(resolution)
        self._weight = mouth_weight(resolution, grow, feather)
        outside = (self._weight == 0).astype(np.uint8)
        mouth_below = np.cumsum(self._weight[::-1], axis=0)[::-1] > 0  # excludes the neck and the background
        near = cv2.distanceTransform(outside, cv2.DIST_L2, 5) <= RING_WIDTH * self._crop_size[0]
        self._skin = (outside.astype(bool) & mouth_below & near).astype(np.float32)
        self._seed = seed

    def measure(
        self, frame: np.ndarray, pasted: np.ndarray, matrix: np.ndarray, opacity: float | np.ndarray = 1.0
    ) -> Texture:
        """Compare the mouth in `pasted` with the skin above it in `frame`.

        Args:
            frame, pasted: the original frame and the frame with the new mouth, (H, W, 3).
            matrix: (2, 3), frame pixels to the crop of `crop_size(resolution)`.
            opacity: opacity of the mouth: one number or float32 (H, W), in [0, 1].
        """
        box, weight = self._in_frame(self._weight, frame, matrix)
        _, skin = self._in_frame(self._skin, frame, matrix)
        weight = weight * (opacity[box] if isinstance(opacity, np.ndarray) else opacity)
        most = float(weight.max(initial=0))
        core = weight > 0.99 * most
        if min(core.sum(), (skin > 0.99).sum()) < MIN_PIXELS:
            return Texture(1.0, 0.0, 0.0)
        wanted = measure_detail(_levels(frame[box]) @ LUMA, skin > 0.99)
        levels = _levels(pasted[box])
        mouth = measure_detail(levels @ LUMA, core)
        white = grain_band_ratio(0.0)
        # the squares of the kernel sum to 36. The grain's share has an error of about 20 %
        floor = 36 * LEAST_DETAIL**2 + 0.2 * white * wanted.fine
        sharpness = [max(detail.coarse - white * detail.fine, 0.0) + floor for detail in (wanted, mouth)]
        sharpening = float(np.clip(np.sqrt(sharpness[0] / sharpness[1]), 1, MAX_SHARPENING))
        sharpened = measure_detail(_sharpen(levels, 1 + most * (sharpening - 1)) @ LUMA, core)
        ratios = [grain_band_ratio(sigma) for sigma in GRAIN_SIGMAS_PX]
        size = float(np.interp(wanted.coarse / max(wanted.fine, 1e-6), ratios, GRAIN_SIGMAS_PX))
        of_unit = measure_detail(_grain(np.random.default_rng(0), weight.shape, size), core)
        lost = 1 - (1 - most) ** 2  # lost variance of the original grain. A lower opacity keeps more of it
        variance = (wanted.fine - sharpened.fine) / of_unit.fine / lost - LEAST_DETAIL**2
        return Texture(sharpening, min(float(np.sqrt(max(variance, 0.0))), MAX_GRAIN), size)

    def apply(
        self,
        pasted: np.ndarray,
        texture: Texture,
        matrix: np.ndarray,
        output_frame: int,
        opacity: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """Sharpen the mouth and add grain. Pixels outside the mouth mask stay bit-exact.

        Args:
            pasted: (H, W, 3), uint8, uint16, or float32 in [0, 1].
            output_frame: number of the frame. Each number always gets the same grain.
            opacity: opacity of the mouth: one number or float32 (H, W), in [0, 1].

        Returns:
            A new frame of the same dtype, or `pasted` itself if there is no correction.
        """
        box, weight = self._in_frame(self._weight, pasted, matrix)
        if is_empty(box) or texture[:2] == (1.0, 0.0):
            return pasted
        changed = pasted.copy()
        weight = (weight * (opacity[box] if isinstance(opacity, np.ndarray) else opacity))[..., None]
        levels = _levels(pasted[box])
        grain = _grain(np.random.default_rng((self._seed, output_frame)), weight.shape[:2], texture.grain_sigma_px)
        # In the soft edge, (1 - weight)^2 of the variance of the original grain is left.
        share = np.sqrt(1 - (1 - weight) ** 2)
        delta = weight * (_sharpen(levels, texture.sharpening) - levels) + share * texture.grain * grain[..., None]
        white = max_value(pasted)
        values = (levels + delta).clip(0, 255) * (white / 255)
        if pasted.dtype.kind == "u":
            values += 0.5
        changed[box] = np.where(weight > 0, values, pasted[box]).astype(pasted.dtype)
        return changed

    def _in_frame(self, mask: np.ndarray, frame: np.ndarray, matrix: np.ndarray) -> tuple[PixelBox, np.ndarray]:
        """The part of a frame under the crop, and a mask of the crop, warped to this part: float32 (h, w)."""
        box = crop_bounds(matrix, self._crop_size, (frame.shape[0], frame.shape[1]))
        return box, warp_to_box(mask, matrix, box, outside=0)


def measure_detail(luma: np.ndarray, region: np.ndarray) -> Detail:
    """Measure the detail of the smooth part of a region. luma: float32 (h, w) in levels. region: bool (h, w)."""
    cv2 = opencv()
    half = (luma.shape[1] // 2, luma.shape[0] // 2)
    small = cv2.resize(luma, half, interpolation=cv2.INTER_AREA)
    small_region = cv2.resize(region.astype(np.float32), half, interpolation=cv2.INTER_AREA) > 0.99
    return Detail(_smooth_energy(luma, region), _smooth_energy(small, small_region))


def _smooth_energy(luma: np.ndarray, region: np.ndarray) -> float:
    response = opencv().filter2D(luma, -1, SECOND_DIFFERENCE)[region] ** 2
    count = int(SMOOTH_SHARE * len(response))
    return float(np.partition(response, count)[:count].mean()) if count else 0.0


@cache
def grain_band_ratio(sigma_px: float) -> float:
    """Ratio of coarse to fine detail of blurred white noise. The ratio is 1/4 without blur, because a half-size pixel
    is the mean of four pixels.

    The function computes both details from the spectrum. Each detail is the mean, over all frequencies, of the squared
    responses of blur, kernel and halving.
    """
    frequency = np.fft.fftfreq(256) * 2 * np.pi
    kernel = opencv().getGaussianKernel(2 * round(4 * sigma_px) + 1, max(sigma_px, 1e-6))[:, 0]
    blur = np.abs(np.fft.fft(kernel, 256)) ** 2
    fine = (blur * (2 - 2 * np.cos(frequency)) ** 2).mean() ** 2
    box = np.cos(frequency / 2) ** 2  # squared response of the mean of two
    coarse = (blur * box * (2 - 2 * np.cos(2 * frequency)) ** 2).mean() ** 2
    return float(coarse / fine)


def _sharpen(levels: np.ndarray, factor: float) -> np.ndarray:
    """Unsharp mask of float32 (h, w, 3): multiply detail finer than DETAIL_SIGMA_PX by `factor`."""
    if factor == 1:
        return levels
    return levels + (factor - 1) * (levels - opencv().GaussianBlur(levels, (0, 0), DETAIL_SIGMA_PX))


def _grain(generator: np.random.Generator, size: tuple[int, ...], sigma_px: float) -> np.ndarray:
    """Blurred Gaussian noise of standard deviation 1: float32 (h, w)."""
    noise = generator.standard_normal(size, np.float32)
    if sigma_px < GRAIN_SIGMAS_PX[1]:
        return noise
    blurred = opencv().GaussianBlur(noise, (0, 0), sigma_px)
    return blurred / max(float(blurred.std()), 1e-6)


def _levels(pixels: np.ndarray) -> np.ndarray:
    """Convert pixels of any dtype to levels of 8 bits: float32."""
    return pixels.astype(np.float32) * np.float32(255 / max_value(pixels))
