"""The socket types of the pack, and what a wire brings."""

from __future__ import annotations

from typing import TypeVar

from comfy_api.latest import io

from ..latentsync.errors import UsageError

CATEGORY = "LatentSync"


Model = io.Custom("LATENTSYNC_MODEL")


Faces = io.Custom("LATENTSYNC_FACES")


Embeds = io.Custom("LATENTSYNC_EMBEDS")


Lips = io.Custom("LATENTSYNC_LIPS")


FaceLandmarks = io.Custom("FACE_LANDMARKS")  # ComfyUI's own


T = TypeVar("T")


def expect_type(name: str, given: object, kind: type[T], maker: str) -> T:
    """What an input was given, if a wire brought it: a prompt may hold any value in a wire's place.

    Args:
        name: of the input.
        kind: of what its wire brings.
        maker: the node that makes it.

    Raises:
        UsageError: it is of another kind.
    """
    if not isinstance(given, kind):
        raise UsageError(f"{name} must be wired, from {maker}, and not be {given!r:.60}")
    return given
