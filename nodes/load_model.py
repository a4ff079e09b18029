"""The Load Model node."""

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
            description="Loads LatentSync's UNet, the Whisper encoder and the VAE. ComfyUI moves the models "
            "between RAM and VRAM.",
            search_aliases=[
                "lip sync model",
                "LatentSync loader",
                "ByteDance LatentSync",
                "latentsyncwrapper",
                "\u5bf9\u53e3\u578b",
            ],
            inputs=[
                io.Combo.Input(
                    "version",
                    options=[AUTO, *sorted(MODELS, key=lambda version: MODELS[version].rank, reverse=True)],
                    default=AUTO,
                    tooltip="1.6 gives sharper faces (512 pixels). 1.5 (256 pixels) needs less VRAM and time. "
                    "'auto' uses an installed version. With 10 GB of VRAM, 'auto' prefers 1.6.",
                ),
                io.Combo.Input(
                    "precision",
                    options=[AUTO, *model_loader.PRECISIONS],
                    default=AUTO,
                    tooltip="Choose the precision of the UNet. With 'auto', ComfyUI chooses. Set fp8 to halve the "
                    "VRAM of the weights. fp8 is less exact. Set fp32 if you get NaN errors.",
                ),
                io.Boolean.Input(
                    "download_missing",
                    default=False,
                    tooltip="Download missing model files: up to 5.5 GB from Hugging Face (or the mirror in "
                    "HF_ENDPOINT) and 4 MB from Google. The node verifies every file.",
                ),
                io.Combo.Input(
                    "unet",
                    options=[AUTO, *model_folders.unet_files()],
                    default=AUTO,
                    advanced=True,
                    tooltip="Choose a UNet file. With 'auto', the node uses the official file of 'version'. For a "
                    "fine-tuned file, also set 'version'.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Connect a Stable Diffusion 1.x VAE to replace sd-vae-ft-mse. An SDXL VAE gives wrong "
                    "colors.",
                ),
            ],
            outputs=[Model.Output(display_name="model", tooltip="Connect this output to Audio Embed and Sampler.")],
        )

    @classmethod
    @override
    def validate_inputs(cls, unet: object) -> bool | str:
        """Accepts official file names that are not on disk yet. ComfyUI's dialog of missing models needs such names."""
        known = [None, AUTO, *model_folders.unet_files(), *model_loader.published_names()]
        return (
            unet in known or f'"unet" is {unet}, but models/latentsync has no such file. Choose another file, or auto.'
        )

    @classmethod
    @override
    def execute(
        cls,
        version: str,
        precision: str,
        download_missing: bool,
        unet: str,
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
