"""Load Model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from ..latentsync.weights.catalog import MODELS
from . import model_folders, model_loader
from .io_types import CATEGORY, Model

if TYPE_CHECKING:
    import comfy.sd

AUTO = "auto"


class LatentSyncLoadModel(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncLoadModel",
            display_name="LatentSync Load Model",
            category=CATEGORY,
            description="Loads LatentSync's UNet, Whisper's encoder and the VAE. ComfyUI decides where they are kept.",
            search_aliases=["lip sync model", "LatentSync loader", "ByteDance LatentSync"],
            inputs=[
                io.Combo.Input(
                    "version",
                    options=[AUTO, *sorted(MODELS, key=lambda version: MODELS[version].rank, reverse=True)],
                    default=AUTO,
                    tooltip="1.6 works on 512-pixel faces and is sharper; 1.5 on 256, in less memory and time. "
                    "auto takes 1.6 if its weights are there and the card has 10 GB, else 1.5; "
                    "with one of them on disk, that one.",
                ),
                io.Combo.Input(
                    "unet",
                    options=[AUTO, *model_folders.unet_files()],
                    default=AUTO,
                    tooltip="auto takes the version's own file, wherever it lies. "
                    "For one that is not ByteDance's (a fine-tune) also choose its version.",
                ),
                io.Combo.Input(
                    "precision",
                    options=[AUTO, *model_loader.PRECISIONS],
                    default=AUTO,
                    tooltip="Precision of the UNet. auto follows ComfyUI: fp16 or bf16 on a GPU, fp32 on a CPU. "
                    "fp8 keeps the weights in half of fp16's memory, and computes in fp16; a little less exact.",
                ),
                io.Boolean.Input(
                    "download_missing",
                    default=False,
                    tooltip="Fetches the files that are not there: up to 5.5 GB, from Hugging Face "
                    "(or the mirror that HF_ENDPOINT names), MediaPipe's 4 MB from Google. "
                    "Each is checked before it is used.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Used instead of sd-vae-ft-mse. It must be a VAE of Stable Diffusion 1.x; "
                    "SDXL's looks the same but gives wrong colors.",
                ),
            ],
            outputs=[Model.Output(display_name="model", tooltip="To Audio Embed and Sampler.")],
        )

    @classmethod
    @override
    def validate_inputs(cls, unet: object) -> bool | str:
        """Lets a published file be named that is not on disk yet: ComfyUI's dialog of missing models needs its name."""
        known = [None, AUTO, *model_folders.unet_files(), *model_loader.published_names()]
        return unet in known or f"there is no {unet} in models/latentsync"

    @classmethod
    @override
    def execute(
        cls,
        version: str,
        unet: str,
        precision: str,
        download_missing: bool,
        vae: comfy.sd.VAE | None = None,
    ) -> io.NodeOutput:
        model = model_loader.load_model(
            version=None if version == AUTO else version,
            unet=None if unet == AUTO else unet,
            precision=precision,
            download_missing=download_missing,
            vae=vae,
        )
        return io.NodeOutput(model)
