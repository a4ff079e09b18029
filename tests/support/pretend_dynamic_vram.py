"""A stand-in for comfy-aimdo, which gives ComfyUI its dynamic VRAM: pages of weights on the pretend device.

ComfyUI reserves addresses for the weights of a model. Each layer asks for its page when it runs. A page that does not
fit is refused, and the layer copies its weights for this call alone. ComfyUI may evict pages of other models.
"""

from __future__ import annotations

from itertools import count
from typing import Any, ClassVar
from weakref import WeakSet

import torch

from tests.support.pretend_device import current

SIGNATURES = count(1)
EVICTED = 255  # in each byte, a NaN in every float dtype
Address = tuple["Pages", int, int]  # pages, key, bytes


class Pages:
    """The pages of one model: comfy-aimdo's ModelVBAR."""

    limit_bytes = float("inf")  # of all models together
    refused = 0
    models: ClassVar[WeakSet[Pages]] = WeakSet()

    def __init__(self, size: int, device: int) -> None:
        self._keys = count()
        self._pages: dict[int, tuple[torch.Tensor, bytes]] = {}
        self._pinned: set[int] = set()
        self.models.add(self)

    def alloc(self, size: int) -> Address:
        return self, next(self._keys), size

    def fault(self, key: int, size: int) -> bytes | None:
        """Make the page of a layer resident. Returns a signature that changes with each new page, or None."""
        if key not in self._pages:
            if sum(pages.loaded_size() for pages in self.models) + size > self.limit_bytes:
                Pages.refused += 1
                return None
            try:
                page = torch.empty(size, dtype=torch.uint8, device=torch.device(current().name, 0))
            except torch.OutOfMemoryError:
                return None
            self._pages[key] = page, next(SIGNATURES).to_bytes(4, "little")
        self._pinned.add(key)
        return self._pages[key][1]

    def unpin(self, key: int, size: int) -> None:
        self._pinned.discard(key)

    def page(self, key: int) -> torch.Tensor:
        return self._pages[key][0]

    def loaded_size(self) -> int:
        return sum(page.numel() for page, _ in self._pages.values())

    def free_memory(self, size: float) -> int:
        """Evict pages that no layer is using. A later read of these pages gives NaN."""
        freed = 0
        for key in [key for key in self._pages if key not in self._pinned]:
            if freed >= size:
                break
            page, _ = self._pages.pop(key)
            with torch.inference_mode():  # pages are made in it
                page.fill_(EVICTED)
            freed += page.numel()
        return freed

    def prioritize(self) -> None:
        """Which pages ComfyUI evicts first does not matter here."""


class HostBuffer:
    """Pinned memory. There is none: ComfyUI runs with --disable-pinned-memory."""

    size = 0

    def __init__(self, *_: int) -> None:
        """Takes what ComfyUI gives."""


def install(limit_bytes: float) -> None:
    """Let the ComfyUI of this process use dynamic VRAM, before it loads a model."""
    import comfy.memory_management
    import comfy.model_patcher
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch

    def page_of(address: Address, device: torch.device) -> torch.Tensor:
        pages, key, _ = address
        return pages.page(key)

    def releasable(device: Any = None) -> int:
        return sum(pages.loaded_size() for pages in Pages.models)

    Pages.limit_bytes = limit_bytes
    comfy_aimdo.model_vbar.ModelVBAR = Pages
    comfy_aimdo.model_vbar.vbars_analyze = releasable
    comfy_aimdo.host_buffer.HostBuffer = HostBuffer
    comfy_aimdo.torch.aimdo_to_tensor = page_of
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
