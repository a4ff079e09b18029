"""A pretend accelerator in pure Python: CPU arithmetic under the rules of a GPU, with every copy and wait counted.

torch's PrivateUse1 device gets a name. A tensor on it is a wrapper around a CPU tensor, and each operation passes
`PretendTensor.__torch_dispatch__`: it checks devices and dtypes as CUDA does, counts copies and waits by the line that
causes them, and accounts for memory. Results equal those of the CPU bit for bit.

It knows nothing of the kernels of a GPU, streams, pinned memory, fragmentation and real speed.
The device belongs to the whole process, and its name cannot change.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from types import FrameType, ModuleType
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.utils import backend_registration

from tests.support.paths import REPOSITORY

LIBRARY_NAME = "pretend"
COMFYUI_NAME = "npu"  # ComfyUI takes it for an Ascend card

MPS_FORBIDDEN = frozenset({torch.float64, torch.float8_e4m3fn, torch.float8_e5m2})
ELSEWHERE = "elsewhere"  # a call from outside our code and ComfyUI's library
SCALAR_NAMES = {torch.float32: "Float", torch.float16: "Half", torch.bfloat16: "BFloat16"}
NORMS = {"aten::native_group_norm": 1, "aten::native_layer_norm": 2}  # position of the weight
TAKES_CPU_INDICES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_linalg_solve_ex")
ATTENTION = "aten::scaled_dot_product_attention"  # one kernel on a GPU, and on the CPU


@dataclass
class Device:
    """The state of the device, and what was counted.

    is_available: whether torch and ComfyUI find it.
    limit_bytes: of its memory.
    forbidden: dtypes that it does not hold.
    is_nearest_black: interpolation by the nearest neighbor is black outside float32, as reported of MPS.
    oom_at: numbers of the allocations that fail, from 1.
    call_at: called at allocations of these numbers.
    sites: the line of each allocation, if it is a list.
    counts: copies ("H2D", "D2H") and waits of the host ("wait"), each with the line of the project or of ComfyUI.
    failed_at: the line of the latest refused operation.
    """

    name: str
    is_available: bool = False
    limit_bytes: float = float("inf")
    forbidden: frozenset[torch.dtype] = frozenset()
    is_nearest_black: bool = False
    oom_at: frozenset[int] = frozenset()
    call_at: Mapping[int, Callable[[], None]] = field(default_factory=dict)
    sites: list[str] | None = None
    allocations: int = 0
    used_bytes: int = 0
    peak_bytes: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_at: str = ""

    def total(self, kind: str) -> int:
        return sum(count for (counted, _), count in self.counts.items() if counted == kind)

    def at(self, kind: str, part: str) -> int:
        """How many of a kind lines whose name contains `part` caused."""
        return sum(count for (counted, site), count in self.counts.items() if counted == kind and part in site)

    def count(self, kind: str) -> None:
        self.counts[kind, call_site()] += 1

    def refuse(self, error: Exception) -> Exception:
        self.failed_at = call_site()
        return error

    @contextmanager
    def counting(self, **settings: Any) -> Iterator[Device]:
        """Counts from zero, with other settings inside the block."""
        before = {name: getattr(self, name) for name in settings}
        self.counts, self.allocations, self.peak_bytes, self.failed_at = Counter(), 0, self.used_bytes, ""
        vars(self).update(settings)
        try:
            yield self
        finally:
            vars(self).update(before)


class Allocation:
    """The memory of one storage, as long as any tensor uses it."""

    def __init__(self, size: int) -> None:
        device = current()
        device.allocations += 1
        if device.sites is not None:
            device.sites.append(call_site())
        device.call_at.get(device.allocations, lambda: None)()
        if device.allocations in device.oom_at or device.used_bytes + size > device.limit_bytes:
            free = (device.limit_bytes - device.used_bytes) / 2**20
            raise device.refuse(
                torch.OutOfMemoryError(
                    f"{device.name} out of memory. Tried to allocate {size / 2**20:.2f} MiB. {free:.2f} MiB are free."
                )
            )
        self.size = size
        device.used_bytes += size
        device.peak_bytes = max(device.peak_bytes, device.used_bytes)

    def __del__(self) -> None:
        if hasattr(self, "size"):
            current().used_bytes -= self.size


ALLOCATIONS: WeakValueDictionary[int, Allocation] = WeakValueDictionary()
"""By the address of the storage."""


class PretendTensor(torch.Tensor):
    """A tensor on the pretend device.

    raw: the CPU tensor with its values.
    allocation: shared by all tensors on one storage.
    """

    raw: torch.Tensor
    allocation: Allocation

    @staticmethod
    def __new__(cls: type[PretendTensor], raw: torch.Tensor) -> PretendTensor:
        device = current()
        if raw.dtype in device.forbidden:
            raise device.refuse(
                TypeError(f"Cannot convert a tensor to {raw.dtype}: the {device.name} device does not support it.")
            )
        address = raw.untyped_storage()._cdata
        allocation = ALLOCATIONS.get(address) or Allocation(raw.untyped_storage().nbytes())
        ALLOCATIONS[address] = allocation
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(device.name, 0),
        )
        tensor.allocation, tensor.raw = allocation, raw
        return tensor

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.raw!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, device, name = dict(kwargs or {}), current(), func._schema.name
        if name == "aten::_has_compatible_shallow_copy_type":
            return False  # of a parameter and its copy on the other side
        if name != ATTENTION and _is_composite(func):  # in inference mode nothing takes it apart before
            return func.decompose(*args, **kwargs)
        tensors = _tensors((args, kwargs))
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        is_to_cpu = target is not None and torch.device(target).type == "cpu"
        if name in ("aten::copy_", "aten::_to_copy"):
            _count_copy(device, name, args, kwargs, is_to_cpu)
        else:
            _check(device, name, args, tensors)
        if name in WAITS:
            device.count("wait")
            device.count("D2H")
        given = {id(tensor.raw): tensor for tensor in tensors if isinstance(tensor, cls)}
        result = func(*mapped(_raw, args), **mapped(_raw, kwargs))
        if name == "aten::upsample_nearest2d" and device.is_nearest_black and result.dtype != torch.float32:
            result.zero_()
        if is_to_cpu:
            return result
        if name == "aten::copy_" and not isinstance(args[0], cls):
            return args[0]

        return mapped(lambda tensor: given[id(tensor)] if id(tensor) in given else cls(tensor), result)


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _check(device: Device, name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    """Raises what CUDA raises for tensors of several devices, and for norms whose weights have another dtype."""
    strangers = [tensor for tensor in tensors if tensor.device.type != device.name and tensor.ndim > 0]
    if strangers and name in TAKES_CPU_INDICES:
        device.count("H2D")
        device.count("wait")
    elif strangers:
        raise device.refuse(
            RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {device.name}:0 and "
                f"{strangers[0].device}! ({name})"
            )
        )
    if name in NORMS:
        weight = args[NORMS[name]]
        if weight is not None and weight.dtype != args[0].dtype:
            expected, found = (SCALAR_NAMES.get(tensor.dtype, tensor.dtype) for tensor in (args[0], weight))
            raise device.refuse(RuntimeError(f"expected scalar type {expected} but found {found}"))


def _count_copy(device: Device, name: str, args: Any, kwargs: Any, is_to_cpu: bool) -> None:
    """A copy between host and device waits, unless it is told not to block."""
    if name == "aten::_to_copy":
        kind, is_blocking = "D2H" if is_to_cpu else "", not kwargs.get("non_blocking", False)
    else:
        to_device, from_device = (isinstance(tensor, PretendTensor) for tensor in args[:2])
        kind = "" if to_device and from_device else "H2D" if to_device else "D2H"
        is_blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if kind:
        device.count(kind)
        if is_blocking:
            device.count("wait")


def mapped(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """The arguments or results of an operator with each tensor replaced: torch's `tree_map` takes ten times as long."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)([mapped(function, item) for item in value])
    if isinstance(value, dict):
        return {key: mapped(function, item) for key, item in value.items()}
    return value


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    mapped(found.append, values)
    return found


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.raw if isinstance(tensor, PretendTensor) else tensor


def call_site() -> str:
    """The innermost line of latentsync/, nodes/ or ComfyUI's comfy/ that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        inside = path.removeprefix(f"{REPOSITORY}/").rpartition("/latentsync-nodes/")[2]  # in a server's custom_nodes
        if inside.startswith(("latentsync/", "nodes/")):
            return f"{inside}:{frame.f_lineno}"
        if "/comfy/" in path:
            return f"comfy/{path.rpartition('/comfy/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ELSEWHERE


class Backend(ModuleType):
    """torch.NAME, as far as torch and ComfyUI ask."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return current().is_available

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """The device draws no random numbers of its own."""

    def get_device_name(self, device: object = None) -> str:
        return "a pretend device"

    def empty_cache(self) -> None:
        """Nothing is cached."""

    def synchronize(self, device: object = None) -> None:
        current().count("wait")

    def memory_stats(self, device: object = None) -> dict[str, int]:
        return {"active_bytes.all.current": 0, "reserved_bytes.all.current": 0}

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        total = int(min(current().limit_bytes, 64 * 2**30))
        return total - current().used_bytes, total


_installed: list[Device] = []
_libraries: list[torch.library.Library] = []  # an operator is registered as long as its library lives


def current() -> Device:
    return _installed[0]


@cache
def install(name: str = LIBRARY_NAME) -> Device:
    """Make the device of this process. As "npu" an unmodified ComfyUI uses it, if this comes before its import."""
    device = Device(name)
    _installed.append(device)
    backend_registration._setup_privateuseone_for_python_backend(name, Backend(f"torch.{name}"))
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    for kernel in (torch.ops.aten.copy_.default, torch.ops.aten.scaled_dot_product_attention.default):
        library.impl(kernel, partial(_below_python, kernel), "PrivateUse1")
    _libraries.append(library)
    if name == COMFYUI_NAME:
        device.is_available = True
        torch.version.cuda = None  # this wheel's: no card of NVIDIA
        stub = ModuleType("torch_npu")
        stub.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None)
        stub.npu_fusion_attention = None  # type: ignore[attr-defined] # transformers imports it, and does not call it
        sys.modules["torch_npu"] = stub
    return device


def _below_python(kernel: Any, *args: Any, **kwargs: Any) -> Any:
    """`torch.tensor(data, device=...)` copies below the level of Python, and attention is not to be taken apart."""
    return PretendTensor.__torch_dispatch__(kernel, (), args, kwargs)


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> torch.Tensor:
    raw = torch.empty(size, dtype=dtype, device="cpu", memory_format=memory_format or torch.contiguous_format)
    return PretendTensor(raw)


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return PretendTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))
