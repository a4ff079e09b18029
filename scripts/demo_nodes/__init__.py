"""A demo-only pack: face landmarks from a file, for machines without MediaPipe's model.

Core ComfyUI's own landmarker gives the same FACE_LANDMARKS where its model is installed.
"""

import json
from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io


class LatentSyncDemoLandmarks(io.ComfyNode):
    """Reads FACE_LANDMARKS from a JSON file of ComfyUI's input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = sorted(path.name for path in Path(folder_paths.get_input_directory()).glob("*.json"))
        return io.Schema(
            node_id="LatentSyncDemoLandmarks",
            display_name="Demo Landmarks",
            category="LatentSync/demo",
            description="The stored face landmarks of the demo's sample clip.",
            inputs=[io.Combo.Input("file", options=files, tooltip="A JSON file in ComfyUI's input folder.")],
            outputs=[io.Custom("FACE_LANDMARKS").Output(display_name="landmarks")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        stored = json.loads((Path(folder_paths.get_input_directory()) / file).read_text(encoding="utf-8"))
        return io.NodeOutput({**stored, "image_size": tuple(stored["image_size"])})


class DemoExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LatentSyncDemoLandmarks]


async def comfy_entrypoint() -> DemoExtension:
    return DemoExtension()
