"""From the decoded crop back into the frame."""

import numpy as np
import torch
import torch.nn.functional as F

from ..pixels import white
from .align import crop_size
from .warp import footprint, is_empty, opencv, to_frame, within


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
    brightest = white(frame)
    crop = unsquared(torch.as_tensor(face)) * (brightest / 2) + brightest / 2
    height, width = crop.shape[:2]
    box = footprint(matrix, (width, height), (frame.shape[0], frame.shape[1]))
    pasted = frame.copy()
    if is_empty(box):
        return pasted
    under = pasted[box]
    local = within(matrix, box)
    over = to_frame(crop, local, under.shape[:2], outside=brightest / 2).clip(0, brightest)
    inside = to_frame(np.ones((height, width), np.float32), local, under.shape[:2], outside=0)
    pasted[box] = _blend(under, over, inside)
    return pasted


def mixed(frame: np.ndarray, pasted: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """A frame on its way to `pasted`, both (H, W, 3).

    Args:
        level: 0 is the frame, 1 is `pasted`: one number, or float32 (H, W). Pixels alike in both stay what they are.
    """
    share = level[..., None] if isinstance(level, np.ndarray) else np.float32(level)
    if np.all(share == 1):
        return pasted
    between = frame + share * (pasted.astype(np.float32) - frame)
    return (np.rint(between) if frame.dtype.kind == "u" else between).astype(frame.dtype)


def regenerated(
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


def unsquared(face: torch.Tensor) -> np.ndarray:
    """A square face (3, R, R) in the proportions of its crop: float32 (height, width, 3), C-contiguous."""
    width, height = crop_size(face.shape[-1])
    pixels = face.detach().float()[None]
    resized = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).cpu().numpy())


def _blend(under: np.ndarray, over: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`over` on `under`, both (h, w, 3), by the soft edge of the crop's cover `inside`, (h, w) in [0, 1]."""
    cv2 = opencv()
    cover = cv2.erode(inside, np.ones((2, 2), np.uint8))
    weight = _softened(cover)
    opacity = (weight * cover)[..., None]
    blended = opacity * over + (1 - weight)[..., None] * under.astype(np.float32, copy=False)
    return blended.astype(under.dtype)


def _softened(cover: np.ndarray) -> np.ndarray:
    """Blend weight (h, w): the cover shrunk by a twentieth of its side, and blurred as far."""
    cv2 = opencv()
    edge_px = int(cover.sum(dtype=np.float64) ** 0.5) // 20
    if edge_px == 0:
        return cover
    shrunk = cv2.erode(cover, np.ones((2 * edge_px, 2 * edge_px), np.uint8))
    sigma_px = 0.3 * (edge_px - 1) + 0.8
    return cv2.GaussianBlur(shrunk, (2 * edge_px + 1, 2 * edge_px + 1), sigma_px)
