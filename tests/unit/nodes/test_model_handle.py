"""Batch sizes and out-of-memory errors in ComfyUI."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import Linear

from latentsync.cli.device import chosen_dtype
from latentsync.oom import BatchLimit
from latentsync.weights import random_init
from latentsync.weights.catalog import VAE
from latentsync.weights.locate import folders_in
from tests.support.synthetic_models import write_models


@pytest.fixture(scope="session")
def runtime(pack: ModuleType) -> ModuleType:
    return pack.model_handle


class Held:
    """Stands for a tensor on the device."""


def test_model_handle_oom_frees_everything(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Held]] = []
    freed: list[bool] = []

    def work() -> Iterator[int]:
        tensor = Held()
        held.append(weakref.ref(tensor))
        yield 1
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"
        )

    monkeypatch.setattr(pack.progress.mm, "unload_all_models", lambda: freed.append(held[0]() is None))
    with pytest.raises(Exception, match=r"Out of memory( \(.*\))?\. Close other programs") as caught:
        list(pack.progress.with_progress(work(), "lips", 2))
    assert type(caught.value).__name__ == "OutOfMemoryError"
    assert str(caught.value).startswith("Out of memory (CUDA out of memory). Close other programs")
    assert freed == [True], "what the run held went before the models did"


class Patcher:
    """A network of 3 GB."""

    def __init__(self, device: str) -> None:
        self.load_device, self.model = torch.device(device), None

    def model_size(self) -> int:
        return 3 * GB


GB = 2**30


def loaded(runtime: ModuleType, version: str, device: str) -> Any:
    spec = runtime.MODELS[version]
    return runtime.LoadedModel(spec, Patcher(device), None, None, torch.float16, ())


@pytest.mark.parametrize(
    ("version", "device", "total_gb", "clips"),
    [
        ("1.6", "meta", 24, 2),
        ("1.6", "meta", 5.2, 1),
        ("1.6", "meta", 2, 1),
        ("1.5", "meta", 24, 8),
        ("1.5", "meta", 5.1, 4),
        ("1.5", "cpu", 24, 2),
    ],
)
def test_model_handle_batch_fits_total_memory(
    runtime: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    device: str,
    total_gb: float,
    clips: int,
) -> None:
    """Beside the weights, and what ComfyUI leaves to the system. Free memory is not asked for."""
    monkeypatch.setattr(runtime.mm, "get_total_memory", lambda *_: total_gb * GB)
    monkeypatch.setattr(runtime.mm, "extra_reserved_memory", lambda: 1 * GB)
    monkeypatch.setattr(runtime.mm, "get_free_memory", None)
    assert loaded(runtime, version, device).batch_limit().max_batch == clips
    warned = [message for message in caplog.messages if "may not fit in the 2.0 GB of meta" in message]
    assert len(warned) == (total_gb == 2)


def test_model_handle_batch_is_at_least_1_at_768_px(runtime: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.mm, "get_total_memory", lambda *_: 24 * GB)
    model = loaded(runtime, "1.6", "meta")
    assert replace(model, spec=replace(model.spec, resolution=768)).batch_limit().max_batch == 1


def test_model_handle_deterministic_is_one_clip(runtime: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.args, "deterministic", True)
    monkeypatch.setattr(runtime.mm, "get_total_memory", None)
    assert loaded(runtime, "1.5", "meta").batch_limit().max_batch == 1


@pytest.mark.parametrize(
    ("error", "is_known"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("mat1 and mat2"), False),
    ],
)
def test_model_handle_oom_is_comfyuis_or_the_librarys(pack: ModuleType, error: Exception, is_known: bool) -> None:
    assert pack.progress.is_oom(error) == is_known


def test_model_handle_vae_result_ignores_free_memory(
    pack: ModuleType, runtime: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ComfyUI's VAE chooses its batch size by free memory."""
    write_models(tmp_path)
    codec = runtime.ComfyVAE(pack.model_loader._load_vae(tmp_path / VAE.path))
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = []
    for free_gb in (0.001, 1000):
        monkeypatch.setattr(codec.vae.patcher, "get_free_memory", lambda _, free=free_gb: free * GB)
        latents = codec.encode(images)
        made.append((latents, codec.decode(latents)))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])


def test_model_handle_vae_survives_oom_of_the_last_operation(
    pack: ModuleType, runtime: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ComfyUI does to the decoded pixels needs VRAM in older versions."""
    write_models(tmp_path)
    codec = runtime.ComfyVAE(pack.model_loader._load_vae(tmp_path / VAE.path))
    latents = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected, output, errors = (
        codec.decode(latents),
        codec.vae.process_output,
        [torch.OutOfMemoryError("out of memory")],
    )

    def refused_once(images: torch.Tensor) -> torch.Tensor:
        if errors:
            raise errors.pop()
        return output(images)

    monkeypatch.setattr(codec.vae, "process_output", refused_once)
    assert torch.equal(codec.decode(latents), expected)
    assert not errors


def test_model_handle_loads_unet_before_every_batch(runtime: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE may have replaced the UNet on the GPU between two batches."""
    brought: list[int] = []
    monkeypatch.setattr(runtime.mm, "load_models_gpu", lambda _, memory_required: brought.append(memory_required))
    model = loaded(runtime, "1.6", "meta")
    model.unet.model = random_init.unet()
    unet = runtime.ComfyUNet(model, BatchLimit(3, "the UNet"))
    for windows in (1, 2):
        assert len(unet.precompute_audio_kv(torch.zeros(windows, 2, 50, 384))) == 16
    assert brought[1] == 1.5 * brought[0] > 0, "two clips, then the three that there is room for"


def test_model_handle_model_too_large_is_one_sentence(
    pack: ModuleType, runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    freed: list[bool] = []
    monkeypatch.setattr(runtime.mm, "load_models_gpu", load)
    monkeypatch.setattr(runtime.mm, "unload_all_models", lambda: freed.append(True))
    model = loaded(runtime, "1.6", "meta")
    unet = runtime.ComfyUNet(model, BatchLimit(3, "the UNet"))
    with pytest.raises(Exception, match=r"^Out of memory( \(.*\))?\. Close other programs"):
        pack.progress.with_oom_message(lambda: unet.precompute_audio_kv(torch.zeros(1, 2, 50, 384)))
    assert freed


def test_model_handle_passes_other_errors_on(pack: ModuleType) -> None:
    def work() -> Iterator[int]:
        raise ValueError("mat1 and mat2")
        yield 1

    with pytest.raises(ValueError, match="mat1 and mat2"):
        list(pack.progress.with_progress(work(), "lips", 1))


@pytest.mark.parametrize(
    ("name", "major"),
    [
        ("NVIDIA GeForce RTX 4090", 8),
        ("NVIDIA GeForce RTX 2060", 7),
        ("Tesla V100", 7),
        ("NVIDIA GeForce GTX 1660 SUPER", 7),
        ("NVIDIA T1000", 7),
        ("NVIDIA GeForce GTX 1080", 6),
        ("NVIDIA GeForce GTX 970", 5),
    ],
)
def test_model_handle_computes_in_the_dtype_of_the_command_line(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, major: int
) -> None:
    mm, gigabytes = pack.model_loader.mm, 6
    properties = SimpleNamespace(name=name, major=major, minor=0, total_memory=gigabytes * GB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: major >= 8)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(mm, "cpu_state", mm.CPUState.GPU)
    monkeypatch.setattr(mm, "get_total_memory", lambda *_: gigabytes * GB)
    device = torch.device("cuda", 0)
    _, computed = pack.model_loader._dtypes("auto", device)
    assert chosen_dtype("auto", device) == computed


def test_model_handle_refuses_fp8_where_the_device_has_none(
    pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's GPUs: torch gives a bare TypeError at the first weight."""
    loader = pack.model_loader
    write_models(tmp_path)
    monkeypatch.setattr(loader, "model_folders", lambda: folders_in(tmp_path))
    monkeypatch.setattr(loader.mm, "supports_cast", lambda _, dtype: dtype.itemsize > 1)
    with pytest.raises(
        Exception, match=r'"precision" is fp8, but .* does not support it\. Set "precision" to auto or fp16'
    ) as caught:
        loader.load_model("1.5", None, "fp8", download_missing=False, vae=None)
    assert type(caught.value).__name__ == "UsageError"


def test_model_handle_never_uses_sage_attention(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = pack.model_loader
    assert loader._attention(torch.device("meta")) is loader.optimized_attention
    monkeypatch.setattr(loader.mm, "sage_attention_enabled", lambda: True)
    assert loader._attention(torch.device("meta")) is loader.attention_pytorch


def test_model_handle_whisper_is_loaded_in_full(runtime: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[dict[str, object]] = []
    monkeypatch.setattr(runtime.mm, "load_models_gpu", lambda _, **options: named.append(options))
    patcher = Patcher("meta")
    patcher.model = Linear(1, 1)
    list(runtime.ComfyWhisper(patcher).parameters())
    assert named == [{"force_full_load": True}]
