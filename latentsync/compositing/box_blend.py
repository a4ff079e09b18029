"""From the decoded crop back into the frame."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ..faces.alignment import crop_size
from ..faces.warp import PixelBox, crop_bounds, is_empty, offset_matrix, opencv, strips, warp_to_frame
from ..video.color import max_value

FINE_EDGE_PX = 8  # an edge so wide is blurred at its own size; a wider one made smaller is off by less than a level


def paste_box(frame: np.ndarray, face: np.ndarray | torch.Tensor, matrix: np.ndarray) -> np.ndarray:
    """Lay a face into its frame as upstream does: the whole crop, softened towards its edge.

    Args:
        frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
        face: (3, R, R) in [-1, 1].
        matrix: (2, 3), frame pixels to the crop of `crop_size(R)`.

    Returns:
        A new frame of the same dtype; pixels outside the face's box are those of `frame`.

    Raises:
        FaceError: the matrix is that of a frame without the face.
    """
    brightest = max_value(frame)
    crop = to_crop_aspect(torch.as_tensor(face)) * (brightest / 2) + brightest / 2
    height, width = crop.shape[:2]
    box = crop_bounds(matrix, (width, height), (frame.shape[0], frame.shape[1]))
    pasted = frame.copy()
    if is_empty(box):
        return pasted
    cover, weight = _cover_and_weight(box, matrix, (width, height))
    for strip in strips(box):
        rows = slice(strip[0].start - box[0].start, strip[0].stop - box[0].start)
        under = pasted[strip]
        over = warp_to_frame(crop, offset_matrix(matrix, strip), under.shape[:2], outside=brightest / 2)
        under[:] = _blend(under, over.clip(0, brightest, out=over), cover[rows], weight[rows])
    return pasted


def alpha_blend(frame: np.ndarray, pasted: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """A frame on its way to `pasted`, both (H, W, 3).

    Args:
        level: 0 is the frame, 1 is `pasted`: one number, or float32 (H, W). Pixels alike in both stay what they are.
    """
    share = level[..., None] if isinstance(level, np.ndarray) else np.float32(level)
    if np.all(share == 1):
        return pasted
    between = frame + share * (pasted.astype(np.float32) - frame)
    return (np.rint(between) if frame.dtype.kind == "u" else between).astype(frame.dtype)


def apply_inpaint_mask(
    decoded: torch.Tensor, crops: np.ndarray | torch.Tensor, keep: np.ndarray | torch.Tensor
) -> torch.Tensor:
    """The decoded faces where the model regenerates, the source's own crops elsewhere.

    Args:
        decoded: (n, 3, R, R), about [-1, 1].
        crops: uint8 (n, 3, R, R), the source's crops.
        keep: float32 (R, R), 1 where the source is kept.

    Returns:
        (n, 3, R, R) on the device and in the dtype of `decoded`.
    """
    kept = torch.as_tensor(keep).to(decoded)
    source = torch.as_tensor(crops).to(decoded) / 127.5 - 1
    return decoded * (1 - kept) + source * kept


def to_crop_aspect(face: torch.Tensor) -> np.ndarray:
    """A square face (3, R, R) in the proportions of its crop: float32 (height, width, 3), C-contiguous."""
    width, height = crop_size(face.shape[-1])
    pixels = face.detach().float()[None]
    resized = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).cpu().numpy())


def _blend(under: np.ndarray, over: np.ndarray, cover: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`over` on `under`, both (h, w, 3), by the crop's cover and its blend weight, (h, w) in [0, 1] each."""
    cv2 = opencv()
    base = under.astype(np.float32)
    over = cv2.multiply(over, cv2.merge([weight * cover] * 3), dst=over)
    base = cv2.multiply(base, cv2.merge([1 - weight] * 3), dst=base)
    return cv2.add(over, base, dst=over).astype(under.dtype)


def _cover_and_weight(box: PixelBox, matrix: np.ndarray, crop_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """float32 (h, w) of the box: how far the crop covers each pixel, and its blend weight.

    The weight is the cover shrunk by a twentieth of its side, and blurred as far. The cover is worked out in 255
    levels, since it is 0 or 1 but for its outline.
    """
    cv2 = opencv()
    width, height = crop_px
    size = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    inside = warp_to_frame(np.full((height, width), 255, np.uint8), offset_matrix(matrix, box), size, outside=0)
    levels = cv2.erode(inside, np.ones((2, 2), np.uint8))
    cover = levels * np.float32(1 / 255)
    edge_px = int((cv2.sumElems(levels)[0] / 255) ** 0.5) // 20
    if edge_px == 0:
        return cover, cover
    return cover, _blurred(cv2.erode(levels, np.ones((2 * edge_px, 2 * edge_px), np.uint8)), edge_px)


def _blurred(levels: np.ndarray, edge_px: int) -> np.ndarray:
    """float32 (h, w) in [0, 1] of uint8 (h, w) blurred as far as `edge_px`, a wide blur at a fraction of the size."""
    cv2 = opencv()
    times = max(edge_px // FINE_EDGE_PX, 1)
    height, width = levels.shape
    small = cv2.resize(levels, (-(-width // times), -(-height // times)), interpolation=cv2.INTER_AREA)
    small = small * np.float32(1 / 255)
    reach_px = round(edge_px / times)
    variance = (0.3 * (edge_px - 1) + 0.8) ** 2 - (times**2 - 1) / 4  # less what averaging and interpolating blur
    blurred = cv2.GaussianBlur(small, (2 * reach_px + 1, 2 * reach_px + 1), variance**0.5 / times)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
