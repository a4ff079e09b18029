"""The pretend device refuses and counts what a GPU would, and computes what the CPU computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import Conv2d, GroupNorm, LayerNorm, Sequential
from torch.nn import functional as F

from latentsync.models.layers import Context, PositionalEncoding, attention
from latentsync.models.unet import UNet
from latentsync.weights import random_init
from tests.support import pretend_device
from tests.support.pretend_device import Device
from tests.support.tiny_networks import normal


@pytest.fixture
def device() -> Iterator[Device]:
    installed = pretend_device.install()
    with installed.counting(is_available=True):
        yield installed


def on(device: Device, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(device.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pretend_device_equals_the_cpu(device: Device, dtype: torch.dtype) -> None:
    x, network = normal(1, 2, 8, 6, 40).to(dtype), Sequential(Conv2d(8, 8, 3, padding=1), GroupNorm(2, 8))
    network.to(dtype)
    expected = attention(*3 * [network(x).flatten(0, 1)], 2)
    result = attention(*3 * [network.to(device.name)(on(device, x)).flatten(0, 1)], 2)
    assert result.device.type == device.name
    assert torch.equal(result.cpu(), expected)


def test_pretend_device_refuses_a_tensor_on_the_cpu(device: Device) -> None:
    x, mask = on(device, normal(1, 2, 4)), torch.ones(4)
    assert torch.equal((x * torch.tensor(2.0)).cpu(), 2 * x.cpu()), "a number may stay on the CPU"
    with pytest.raises(RuntimeError, match="at least two devices, pretend:0 and cpu"):
        x * mask


def test_pretend_device_refuses_float32_norms_of_half(device: Device) -> None:
    x = normal(1, 2, 4).half()
    assert len(LayerNorm(4)(x)), "the CPU takes it"
    with pytest.raises(RuntimeError, match="expected scalar type Half but found Float"):
        LayerNorm(4).to(device.name)(on(device, x))


def test_pretend_device_counts_copies_and_waits(device: Device) -> None:
    x = on(device, normal(1, 2, 4))
    on(device, x)  # is there already
    x.sum().item()
    x.cpu()
    torch.ones(2).to(device.name, non_blocking=True)
    torch.full((1,), 3.0, device=device.name)
    torch.tensor([3.0], device=device.name)
    assert [device.total(kind) for kind in ("H2D", "D2H", "wait")] == [3, 2, 4]


def test_pretend_device_names_the_line_that_waits(device: Device) -> None:
    """A table that nobody moved is copied in each pass."""
    table = PositionalEncoding(8, 16)
    table(on(device, normal(1, 2, 4, 8)))
    ((kind, site),) = [key for key in device.counts if "latentsync/" in key[1] and key[0] == "H2D"]
    assert (kind, site.partition(":")[0]) == ("H2D", "latentsync/models/layers.py")


def test_pretend_device_finds_a_wait_in_a_pass(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, trunk = random_init.unet().to(device.name), UNet.trunk
    x = on(device, normal(1, 1, 13, 2, 8, 8))

    def waits() -> int:
        with device.counting():
            unet(x, 500, None)
            return device.total("wait")

    def planted(self: UNet, stem: torch.Tensor, context: Context) -> torch.Tensor:
        assert bool(stem.isfinite().all())
        return trunk(self, stem, context)

    without = waits()
    monkeypatch.setattr(UNet, "trunk", planted)
    assert waits() == without + 1


def test_pretend_device_runs_out_of_memory(device: Device) -> None:
    with (
        device.counting(limit_bytes=device.used_bytes + 4096),
        pytest.raises(torch.OutOfMemoryError, match=r"0\.01 MiB"),
    ):
        torch.empty(2048, device=device.name)
    with device.counting(oom_at=frozenset({2})):
        first = torch.empty(1, device=device.name)
        with pytest.raises(torch.OutOfMemoryError):
            first + 1


def test_pretend_device_frees_a_storage_with_its_last_view(device: Device) -> None:
    before = device.used_bytes
    x = torch.zeros(1024, device=device.name)
    view = x[:2].view(1, 2)
    del x
    assert device.used_bytes == before + 4096
    del view
    assert device.used_bytes == before


def test_pretend_device_has_the_limits_of_mps(device: Device) -> None:
    x = on(device, normal(1, 1, 1, 2, 2))
    with device.counting(forbidden=pretend_device.MPS_FORBIDDEN, is_nearest_black=True):
        with pytest.raises(TypeError, match="float64"):
            x.double()
        with pytest.raises(TypeError, match="float8"):
            torch.empty(2, dtype=torch.float8_e4m3fn, device=device.name)
        assert F.interpolate(x, scale_factor=2.0).any()
        assert not F.interpolate(x.half(), scale_factor=2.0).any()
