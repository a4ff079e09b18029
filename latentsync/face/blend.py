"""From the decoded crop back into the frame."""

import numpy as np
import torch
import torch.nn.functional as F

from .align import crop_size
from .warp import footprint, is_empty, opencv, to_frame, within


def paste_box(
    frame: np.ndarray, face: np.ndarray | torch.Tensor, matrix: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """Lay a face into its frame as upstream does: the whole crop, softened towards its edge.

    Args:
        frame: (H, W, 3), uint8, or float32 in [0, 1].
        face: (3, R, R) in [-1, 1].
        matrix: (2, 3), frame pixels to the crop of `crop_size(R)`.
        strength: 0 to 1, how much of the face is seen.

    Returns:
        A new frame of the same dtype; pixels outside the face's box are those of `frame`.

    Raises:
        FaceError: the matrix is that of a frame without the face.
    """
    white = 255.0 if frame.dtype == np.uint8 else 1.0
    crop = _unsquared(torch.as_tensor(face)) * (white / 2) + white / 2
    height, width = crop.shape[:2]
    box = footprint(matrix, (width, height), (frame.shape[0], frame.shape[1]))
    pasted = frame.copy()
    if is_empty(box):
        return pasted
    under = pasted[box]
    local = within(matrix, box)
    over = to_frame(crop, local, under.shape[:2], outside=white / 2).clip(0, white)
    inside = to_frame(np.ones((height, width), np.float32), local, under.shape[:2], outside=0)
    pasted[box] = _blend(under, over, inside, strength)
    return pasted


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


def _unsquared(face: torch.Tensor) -> np.ndarray:
    """A square face (3, R, R) in the proportions of its crop: float32 (height, width, 3), C-contiguous."""
    width, height = crop_size(face.shape[-1])
    pixels = face.detach().float()[None]
    resized = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).cpu().numpy())


def _blend(under: np.ndarray, over: np.ndarray, inside: np.ndarray, strength: float) -> np.ndarray:
    """`over` on `under`, both (h, w, 3), by the soft edge of the crop's cover `inside`, (h, w) in [0, 1]."""
    cv2 = opencv()
    cover = cv2.erode(inside, np.ones((2, 2), np.uint8))
    weight = _softened(cover) * np.float32(strength)
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
