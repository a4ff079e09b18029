"""The UNet: the official layout to the last key, and what every argument of a pass does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import GroupNorm

from latentsync.errors import WeightsError
from latentsync.models import layers
from latentsync.models.layers import attention, fold, norm_over_frames, unfold
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
def x() -> Tensor:
    return tiny_networks.normal(1, 2, 13, FRAMES, SIDE, SIDE)


@pytest.fixture
def audio() -> Tensor:
    return tiny_networks.normal(2, 2, FRAMES, 50, 384)


@pytest.fixture
def audio_kv(unet: UNet, audio: Tensor) -> AudioKV:
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
    operations = SimpleNamespace(**{name: type(f"Custom{name}", (getattr(nn, name),), {}) for name in names})
    with torch.device("meta"):
        unet = UNet(operations=operations)
    modules_with_weights = [module for module in unet.modules() if list(module.parameters(recurse=False))]
    assert len(modules_with_weights) > 500
    assert {type(module).__name__ for module in modules_with_weights} == {f"Custom{name}" for name in names}


def test_unet_uses_the_given_attention(x: Tensor, audio: Tensor) -> None:
    heads_of_calls: list[int] = []

    def counting_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        heads_of_calls.append(heads)
        return attention(query, key, value, heads)

    unet = UNet(random_init.UNET_CONFIG, attention=counting_attention)
    unet(x, 1, unet.precompute_audio_kv(audio))
    # 16 spatial transformers and 20 motion modules, two attentions each
    assert heads_of_calls == [8] * 2 * (16 + 20)


def test_unet_shallow_pass_is_end_of_full_pass(unet: UNet, x: Tensor, audio_kv: AudioKV) -> None:
    full, features = unet(x, 500, audio_kv)
    shallow, returned_features = unet(x, 500, audio_kv, features)
    assert returned_features is features
    assert torch.equal(shallow, full)
    assert full.shape == (2, 4, FRAMES, SIDE, SIDE)


def test_unet_shallow_pass_takes_cached_features(unet: UNet, x: Tensor, audio_kv: AudioKV) -> None:
    full, features = unet(x, 500, audio_kv)
    assert not torch.equal(unet(x, 500, audio_kv, torch.zeros_like(features))[0], full)


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_unet_cfg_pass_is_uncond_and_cond_pass(unet: UNet, x: Tensor, audio: Tensor, frames: int) -> None:
    x, audio = x[:, :, :frames], audio[:, :frames]
    audio_kv, zeros_kv = unet.precompute_audio_kv(audio), unet.precompute_audio_kv(torch.zeros_like(audio))
    (uncond, uncond_features), (cond, cond_features) = unet(x, 500, zeros_kv), unet(x, 500, audio_kv)
    both, features = unet(x, 500, audio_kv, do_cfg=True)
    shallow, _ = unet(x, 500, audio_kv, features, do_cfg=True)
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(both, torch.cat([uncond, cond]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features, torch.cat([uncond_features, cond_features]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shallow, both, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unet(x, 500, None)[0], uncond, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(uncond, cond, atol=1e-2)


def test_unet_can_be_trained(x: Tensor, audio: Tensor) -> None:
    """Autograd reaches every weight, and a training pass computes what sampling computes."""
    unet = random_init.unet().requires_grad_(True)
    trained, _ = unet(x, 500, unet.precompute_audio_kv(audio))
    trained.square().mean().backward()
    assert [name for name, weight in unet.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    with torch.no_grad():
        sampled, _ = unet(x, 500, unet.precompute_audio_kv(audio))
    torch.testing.assert_close(trained, sampled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, FRAMES])
@torch.no_grad()
def test_unet_chunked_layers_give_the_same(
    unet: UNet, x: Tensor, audio: Tensor, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, audio_kv = x[:, :, :frames], unet.precompute_audio_kv(audio[:, :frames])
    whole, features = unet(x, 500, audio_kv, do_cfg=True)
    monkeypatch.setattr(layers, "CPU_CHUNK_BYTES", 50_000)
    calls: list[int] = []
    net = unet.up_blocks[-1].attentions[0].transformer_blocks[0].ff.net
    with net.register_forward_hook(lambda *_: calls.append(1)):
        chunked, chunked_features = unet(x, 500, audio_kv, do_cfg=True)
    assert len(calls) > 1
    # float32 kernels sum in another order for other shapes
    torch.testing.assert_close(chunked, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(chunked_features, features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unet(x, 500, audio_kv, features, do_cfg=True)[0], whole, atol=1e-4, rtol=1e-4)


def test_unet_windows_of_a_batch_are_independent(unet: UNet, x: Tensor, audio: Tensor) -> None:
    both, _ = unet(x, 500, unet.precompute_audio_kv(audio), do_cfg=True)
    alone, _ = unet(x[:1], 500, unet.precompute_audio_kv(audio[:1]), do_cfg=True)
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(both[::2], alone, atol=1e-4, rtol=1e-4)


def test_unet_resnet_norms_span_the_frames() -> None:
    """The statistics include all frames of the window; diffusers' motion UNet normalizes each frame alone."""
    norm = GroupNorm(2, 4)
    window = tiny_networks.normal(1, 1, 4, 3, 2, 2) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    torch.testing.assert_close(unfold(norm_over_frames(norm, fold(window), frames=3), batch=1), norm(window))
