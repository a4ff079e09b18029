"""The socket types of the pack."""

from comfy_api.latest import io

CATEGORY = "LatentSync"

Model = io.Custom("LATENTSYNC_MODEL")
Faces = io.Custom("LATENTSYNC_FACES")
Embeds = io.Custom("LATENTSYNC_EMBEDS")
Lips = io.Custom("LATENTSYNC_LIPS")
FaceLandmarks = io.Custom("FACE_LANDMARKS")  # ComfyUI's own
