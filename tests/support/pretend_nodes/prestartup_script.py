"""ComfyUI runs this before it looks for a device: it finds the pretend device."""

import sys
from pathlib import Path
from types import ModuleType

tests = sys.modules["tests"] = ModuleType("tests")  # ComfyUI has a folder of this name, too
tests.__path__ = [str(Path(__file__).resolve().parents[2])]

from tests.support import pretend_device  # noqa: E402

pretend_device.install(pretend_device.COMFYUI_NAME)
