"""The UNet: the official layout, and every layer from the given operations."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import GroupNorm

from latentsync.errors import WeightsError
from latentsync.models import layers
from latentsync.models.layers import AttentionFn, attention, fold, norm_over_clip, unfold
from latentsync.models.protocols import AudioKV
from latentsync.models.unet import UNet, UNetConfig
from latentsync.weights import random_init
from latentsync.weights.loader import meta_shapes
from tests.support import tiny_networks

FRAMES, SIDE = 3, 16


@pytest.fixture(scope="module")
def unet() -> UNet:
    return random_init.unet()


@pytest.fixture
def x() -> torch.Tensor:
    return tiny_networks.normal(1, 2, 13, FRAMES, SIDE, SIDE)


@pytest.fixture
def audio() -> torch.Tensor:
    return tiny_networks.normal(2, 2, FRAMES, 50, 384)


@pytest.fixture
def heard(unet: UNet, audio: torch.Tensor) -> AudioKV:
    return unet.precompute_audio_kv(audio)


@pytest.mark.parametrize("layout", ["unet", "unet_tiny"])
def test_unet_layout_is_official(layout: str) -> None:
    official = {key: tuple(shape) for key, shape in tiny_networks.layouts()[layout].items()}
    assert meta_shapes(lambda: UNet(UNetConfig.from_shapes(official))) == official


def test_unet_default_config_is_of_released_models() -> None:
    assert UNetConfig.from_shapes(tiny_networks.layouts()["unet"]) == UNetConfig()


def test_unet_refuses_widths_of_another_network() -> None:
    with pytest.raises(WeightsError, match="not a LatentSync UNet"):
        UNetConfig.from_shapes(tiny_networks.layouts()["vae_tiny"])


def test_unet_layers_come_from_operations() -> None:
    names = ("Linear", "Conv2d", "GroupNorm", "LayerNorm")
    ops = SimpleNamespace(**{name: type(f"Given{name}", (getattr(nn, name),), {}) for name in names})
    with torch.device("meta"):
        unet = UNet(ops=ops)
    holders = [module for module in unet.modules() if list(module.parameters(recurse=False))]
    assert len(holders) > 500
    assert {type(module).__name__ for module in holders} == {f"Given{name}" for name in names}


def test_unet_uses_the_given_attention(x: torch.Tensor, audio: torch.Tensor) -> None:
    heads_seen: list[int] = []

    def counted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        heads_seen.append(heads)
        return attention(query, key, value, heads)

    given: AttentionFn = counted
    unet = UNet(random_init.UNET_CONFIG, attention=given)
    unet(x, 1, unet.precompute_audio_kv(audio))
    # 16 spatial transformers and 20 motion modules, two attentions each
    assert heads_seen == [8] * 2 * (16 + 20)


def test_unet_shallow_pass_is_end_of_full_pass(unet: UNet, x: torch.Tensor, heard: AudioKV) -> None:
    whole, deep = unet(x, 500, heard)
    shallow, returned = unet(x, 500, heard, deep)
    assert returned is deep
    assert torch.equal(shallow, whole)
    assert whole.shape == (2, 4, FRAMES, SIDE, SIDE)


def test_unet_shallow_pass_takes_cached_features(unet: UNet, x: torch.Tensor, heard: AudioKV) -> None:
    _, deep = unet(x, 500, heard)
    assert not torch.equal(unet(x, 500, heard, torch.zeros_like(deep))[0], unet(x, 500, heard, deep)[0])


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_unet_cfg_pass_is_uncond_and_cond_pass(unet: UNet, x: torch.Tensor, audio: torch.Tensor, frames: int) -> None:
    x, audio = x[:, :, :frames], audio[:, :frames]
    heard, nothing = unet.precompute_audio_kv(audio), unet.precompute_audio_kv(torch.zeros_like(audio))
    (silent, silent_deep), (aware, aware_deep) = unet(x, 500, nothing), unet(x, 500, heard)
    both, deep = unet(x, 500, heard, do_cfg=True)
    shallow, _ = unet(x, 500, heard, deep, do_cfg=True)
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(both, torch.cat([silent, aware]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(deep, torch.cat([silent_deep, aware_deep]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shallow, both, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unet(x, 500, None)[0], silent, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(silent, aware, atol=1e-2)


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_unet_chunked_layers_give_the_same(
    unet: UNet, x: torch.Tensor, audio: torch.Tensor, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, heard = x[:, :, :frames], unet.precompute_audio_kv(audio[:, :frames])
    whole, deep = unet(x, 500, heard, do_cfg=True)
    monkeypatch.setattr(layers, "CPU_PART_BYTES", 50_000)
    counts: list[int] = []
    net = unet.up_blocks[-1].attentions[0].transformer_blocks[0].ff.net
    with net.register_forward_hook(lambda *_: counts.append(1)):
        in_parts, deep_in_parts = unet(x, 500, heard, do_cfg=True)
    assert len(counts) > 1
    # float32 kernels sum in another order for other shapes
    torch.testing.assert_close(in_parts, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(deep_in_parts, deep, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unet(x, 500, heard, deep, do_cfg=True)[0], whole, atol=1e-4, rtol=1e-4)


def test_unet_windows_of_a_batch_are_independent(unet: UNet, x: torch.Tensor, audio: torch.Tensor) -> None:
    both, _ = unet(x, 500, unet.precompute_audio_kv(audio), do_cfg=True)
    alone, _ = unet(x[:1], 500, unet.precompute_audio_kv(audio[:1]), do_cfg=True)
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(both[::2], alone, atol=1e-4, rtol=1e-4)


def test_unet_resnet_norms_span_the_frames() -> None:
    """Louder frames change the norm of the others. The motion UNet of diffusers normalizes each frame alone."""
    norm = GroupNorm(2, 4)
    clip = tiny_networks.normal(1, 1, 4, 3, 2, 2) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    torch.testing.assert_close(unfold(norm_over_clip(norm, fold(clip), frames=3), batch=1), norm(clip))
