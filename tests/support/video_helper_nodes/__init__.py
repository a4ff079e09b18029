"""A pack for tests only: loads and combines video as the widespread video helpers do, on ComfyUI's older interface.

Sound is a mapping that is no dict, and is read when it is first asked for; reading the sound of a silent video fails.
Frames are one IMAGE batch, on the processor and in float32, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import av
import folder_paths
import numpy as np
import torch


class LateSound(Mapping[str, Any]):
    """The audio of a file, read when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        if self._read is None:
            self._read = self._decode()
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2

    def _decode(self) -> dict[str, Any]:
        with av.open(self._path) as container:
            if not container.streams.audio:
                raise RuntimeError(f"{self._path.name} does not contain any stream of sound")
            rate = container.streams.audio[0].rate
            pieces = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return {"waveform": torch.from_numpy(np.concatenate(pieces, axis=1))[None], "sample_rate": rate}


class HelperLoadVideo:
    CATEGORY = "tests"
    FUNCTION = "load"
    RETURN_TYPES = ("IMAGE", "INT", "AUDIO", "FLOAT")
    RETURN_NAMES = ("images", "frame_count", "audio", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"video": ("STRING", {"default": ""})}}

    def load(self, video: str) -> tuple[torch.Tensor, int, LateSound, float]:
        path = Path(folder_paths.get_input_directory()) / video
        with av.open(path) as container:
            rate = float(container.streams.video[0].average_rate)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        images = torch.from_numpy(np.stack(frames).astype(np.float32) / 255)
        return images, len(images), LateSound(path), rate


class HelperVideoCombine:
    """Stores the inputs of a video combiner for the test to read."""

    CATEGORY = "tests"
    FUNCTION = "combine"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        required = {
            "images": ("IMAGE",),
            "frame_rate": ("FLOAT", {"default": 8.0}),
            "name": ("STRING", {"default": ""}),
        }
        return {"required": required, "optional": {"audio": ("AUDIO",)}}

    def combine(self, images: torch.Tensor, frame_rate: float, name: str, audio: Any = None) -> dict[str, Any]:
        frames = [(255 * image.numpy()).round().astype(np.uint8) for image in images]
        track = audio["waveform"].squeeze(0).transpose(0, 1).numpy()
        path = Path(folder_paths.get_output_directory()) / f"{name}.npz"
        shown = {"images": str(images.dtype), "audio": str(audio["waveform"].dtype)}
        np.savez(path, frames=np.stack(frames), track=track, rate=frame_rate, sound_rate=audio["sample_rate"], **shown)
        return {"ui": {"gifs": [{"filename": path.name, "subfolder": "", "type": "output"}]}}


NODE_CLASS_MAPPINGS = {"HelperLoadVideo": HelperLoadVideo, "HelperVideoCombine": HelperVideoCombine}
