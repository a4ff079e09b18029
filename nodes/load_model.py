"""Load Model."""

from comfy_api.latest import io
from typing_extensions import override

from . import runtime
from .sockets import CATEGORY, Model

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
                    options=[AUTO, "1.6", "1.5"],
                    default=AUTO,
                    tooltip="1.6 works on 512-pixel faces and is sharper; 1.5 on 256, in less memory and time. "
                    "auto takes 1.6 if its weights are there, else 1.5.",
                ),
                io.Combo.Input(
                    "unet",
                    options=[AUTO, *runtime.unet_files()],
                    default=AUTO,
                    tooltip="auto takes models/latentsync/VERSION/latentsync_unet. "
                    "For another file (a fine-tune) also choose its version.",
                ),
                io.Combo.Input(
                    "precision",
                    options=[AUTO, *runtime.PRECISIONS],
                    default=AUTO,
                    tooltip="Precision of the UNet. auto follows ComfyUI: fp16 or bf16 on a GPU, fp32 on a CPU.",
                ),
            ],
            outputs=[Model.Output(display_name="model", tooltip="To Audio Embed and Sampler.")],
        )

    @classmethod
    @override
    def execute(cls, version: str, unet: str, precision: str) -> io.NodeOutput:
        model = runtime.load_model(
            version=None if version == AUTO else version, unet=None if unet == AUTO else unet, precision=precision
        )
        return io.NodeOutput(model)
