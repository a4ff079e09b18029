"""The ComfyUI layer: each node converts its inputs, calls the library, and converts the result."""

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from .audio_embed import LatentSyncAudioEmbed
from .crops import LatentSyncCropsIn, LatentSyncCropsOut
from .face_prep import LatentSyncFacePrep
from .load_model import LatentSyncLoadModel
from .model_folders import register_model_folders
from .sampler import LatentSyncSampler
from .score import LatentSyncScore
from .to_images import LatentSyncToImages
from .video_combine import LatentSyncVideoCombine


class LatentSyncExtension(ComfyExtension):
    """The list of nodes."""

    @override
    async def on_load(self) -> None:
        register_model_folders()

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LatentSyncLoadModel,
            LatentSyncFacePrep,
            LatentSyncAudioEmbed,
            LatentSyncSampler,
            LatentSyncVideoCombine,
            LatentSyncToImages,
            LatentSyncCropsOut,
            LatentSyncCropsIn,
            LatentSyncScore,
        ]
