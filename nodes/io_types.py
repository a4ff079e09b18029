"""The input and output types of the pack, and the check of a connected value."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from comfy_api.latest import io

from ..latentsync.errors import UsageError

CATEGORY = "LatentSync"

# ComfyUI 0.19 and newer sends the preview of a cached node again, for example after the page was reloaded
KEEPS_PREVIEW: dict[str, Any] = dict.fromkeys(
    {"has_intermediate_output"} & {field.name for field in fields(io.Schema)}, True
)


Model = io.Custom("LATENTSYNC_MODEL")


FaceTracks = io.Custom("LATENTSYNC_FACE_TRACK")


AudioEmbeds = io.Custom("LATENTSYNC_AUDIO_EMBEDS")


Lips = io.Custom("LATENTSYNC_LIPS")


FaceLandmarks = io.Custom("FACE_LANDMARKS")  # ComfyUI's own


T = TypeVar("T")


def expect_type(name: str, value: object, kind: type[T], maker: str) -> T:
    """Return the value of an input if it has the expected type. An API prompt can contain any value.

    Args:
        name: name of the input.
        kind: expected type of the value.
        maker: the node to connect, for the message.

    Raises:
        UsageError: the value has another type.
    """
    if not isinstance(value, kind):
        raise UsageError(f'"{name}" has a value of the wrong type. Connect {maker}.')
    return value
