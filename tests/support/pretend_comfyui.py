"""ComfyUI's own executor and this pack's nodes in one process, on the CPU or on the pretend device."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from latentsync.video.video_file import VideoFile
from scripts.comfyui import BASE_FOLDERS, installed_program
from tests.support import graphs, pretend_device, pretend_dynamic_vram
from tests.support.paths import REPOSITORY
from tests.support.pretend_device import COMFYUI_NAME, Device

EXTRAS = ("nodes_video", "nodes_audio")
PACKS = (REPOSITORY, REPOSITORY / "scripts" / "demo_nodes")


class Server:
    """What the executor tells, to nobody."""

    client_id = None
    last_node_id = None
    last_prompt_id = None

    def send_sync(self, *_: object) -> None:
        pass

    def send_progress_text(self, *_: object) -> None:
        pass


class Latents:
    """A node that hands out the latents of a lip track."""

    FUNCTION, CATEGORY, RETURN_TYPES, OUTPUT_NODE = "keep", "", (), True
    kept: Any = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"lips": ("*",)}}

    def keep(self, lips: Any) -> tuple[()]:
        Latents.kept = lips.latents.clone()
        return ()


class PretendComfyUI:
    """ComfyUI in this process: once only, and before anything else imports it.

    Args:
        base: its base directory, with models and input.
        arguments: of its command line. With "--cpu" it runs on the CPU, else on the pretend device.
        dynamic_bytes: of the weights that dynamic VRAM holds. None: without dynamic VRAM.
    """

    def __init__(self, base: Path, arguments: Sequence[str] = (), dynamic_bytes: float | None = None) -> None:
        self.base = base
        self.device: Device | None = None if "--cpu" in arguments else pretend_device.install(COMFYUI_NAME)
        for name in BASE_FOLDERS:
            (base / name).mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(installed_program()))
        shared = ("--disable-pinned-memory", "--use-pytorch-cross-attention", "--base-directory", str(base))
        sys.argv = ["main.py", *shared, *arguments]
        if "--use-sage-attention" in arguments:
            sys.argv.remove("--use-pytorch-cross-attention")
            sys.modules["sageattention"] = refusing_sage()
        import comfy.options

        comfy.options.enable_args_parsing()
        import execution
        import folder_paths
        from comfy import model_management

        import nodes

        if dynamic_bytes is not None:
            pretend_dynamic_vram.install(dynamic_bytes)
        folder_paths.set_output_directory(str(base / "output"))
        folder_paths.set_input_directory(str(base / "input"))
        for module in EXTRAS:
            path = installed_program() / "comfy_extras" / f"{module}.py"
            assert asyncio.run(nodes.load_custom_node(str(path), module_parent="comfy_extras"))
        for pack in PACKS:
            assert asyncio.run(nodes.load_custom_node(str(pack)))
        nodes.NODE_CLASS_MAPPINGS["Latents"] = Latents
        loader = pack_module(".nodes.model_loader")
        loader.attention = loader.attention_pytorch  # also on a CPU, for the same order of sums
        pack_module(".nodes.model_handle").VAE_IMAGES = 1  # likewise: a CPU takes one at a time
        _align_weights()
        self.mm = model_management
        self.loads: list[str] = []
        self.encoded_images = 0
        self._executor = execution.PromptExecutor(
            Server(), execution.CacheType.CLASSIC, {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        )
        load = model_management.load_models_gpu

        def counted(models: Any, *given: Any, **named: Any) -> Any:
            self.loads += [type(patcher.model).__name__ for patcher in models]
            return load(models, *given, **named)

        model_management.load_models_gpu = counted
        self._count_encodes()

    def _count_encodes(self) -> None:
        from comfy.ldm.models.autoencoder import AutoencoderKL

        encode = AutoencoderKL.encode

        def counted(vae: AutoencoderKL, images: Any, *given: Any, **named: Any) -> Any:
            self.encoded_images += len(images)
            return encode(vae, images, *given, **named)

        AutoencoderKL.encode = counted

    def clips_at_once(self, count: int) -> None:
        """How many clips the UNet takes at once on a CPU."""
        pack_module(".nodes.model_handle").CFG_BATCH = count

    def compute_in(self, dtype: torch.dtype) -> None:
        """Store and compute the UNet in a dtype that ComfyUI does not choose on a CPU."""
        pack_module(".nodes.model_loader")._dtypes = lambda *_: (dtype, dtype)

    def results(self, graph: graphs.Graph) -> dict[str, np.ndarray]:
        """Run a prompt: its latents and its frames."""
        self.run(graph)
        return {"latents": Latents.kept.numpy(), "frames": self.frames(graph)}

    def run(self, graph: graphs.Graph) -> None:
        """Run a prompt. Raises RuntimeError with the message of the node that failed."""
        outputs = [key for key, node in graph.items() if node["class_type"] in ("Latents", "LatentSyncVideoCombine")]
        self._executor.execute(graph, "prompt", {}, outputs)
        if not self._executor.success:
            event, data = self._executor.status_messages[-1]
            raise RuntimeError(f"{event}: {data.get('exception_type', '')}: {data.get('exception_message', '')}")

    def unload(self) -> None:
        """What ComfyUI's button "Free model and node cache" does."""
        self.mm.unload_all_models()
        self._executor.reset()
        self.mm.cleanup_models_gc()
        self.mm.soft_empty_cache()

    def frames(self, graph: graphs.Graph) -> np.ndarray:
        """The newest video of a graph."""
        prefix = graph[graphs.node(graph, "LatentSyncVideoCombine")]["inputs"]["filename_prefix"]
        video = VideoFile(max((self.base / "output").glob(f"{prefix}*.mkv"), key=lambda path: path.name))
        return np.stack(list(video.read(range(video.frame_count))))


def pack_module(name: str) -> Any:
    """A module of the pack, under the name that ComfyUI gave it."""
    return sys.modules[str(REPOSITORY).replace(".", "_x_") + name]


def _align_weights() -> None:
    """Weights mapped from a file may lie at odd addresses, where the CPU's kernels sum in another order."""
    loader = pack_module(".latentsync.weights.loader")
    read = loader.read

    def aligned(path: Path) -> Any:
        checkpoint = read(path)
        return replace(checkpoint, tensors={key: tensor.clone() for key, tensor in checkpoint.tensors.items()})

    loader.read = aligned


def leave_a_tensor_on_the_cpu() -> None:
    """Plants a fault: what silence adds to the pixels is not on the device."""
    attention = pack_module(".latentsync.models.layers").AudioAttention
    uncond = attention.uncond
    attention.uncond = lambda self, x: uncond(self, x).cpu()


def refusing_sage() -> ModuleType:
    """SageAttention without a kernel for any head."""
    module = ModuleType("sageattention")

    def sageattn(*_: object, **__: object) -> None:
        raise ValueError("Unsupported head_dim: 160")

    module.sageattn = sageattn  # type: ignore[attr-defined]
    return module


def video_graph(prefix: str, **model: object) -> graphs.Graph:
    """The video workflow on the sample clip, with two steps, its latents handed out, and a lossless video."""
    made = graphs.with_landmarks(graphs.quick("lipsync_video"), "latentsync_sample.json")
    made = graphs.changed(
        made, "LatentSyncVideoCombine", format="mkv ffv1 lossless", filename_prefix=prefix, save_record=False
    )
    made = graphs.changed(made, "LatentSyncLoadModel", **model)
    made["latents"] = {"class_type": "Latents", "inputs": {"lips": [graphs.node(made, "LatentSyncSampler"), 0]}}
    return made
