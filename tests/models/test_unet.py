"""The UNet: the official layout to the last key, and every weight from the given ops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from latentsync import synthetic
from latentsync.checkpoint import meta_shapes
from latentsync.errors import WeightsError
from latentsync.models.layers import Attend, attend, fold, norm_over_clip, unfold
from latentsync.models.unet import UNet, UNetConfig
from tests import parity

FRAMES, SIDE = 3, 8


@pytest.fixture(scope="module")
def unet() -> UNet:
    return synthetic.unet()


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return parity.normal(1, 2, 13, FRAMES, SIDE, SIDE), parity.normal(2, 2, FRAMES, 50, 384)


@pytest.mark.parametrize("layout", ["unet", "unet_tiny"])
def test_layout_is_the_official_one(layout: str) -> None:
    official = {key: tuple(shape) for key, shape in parity.layouts()[layout].items()}
    assert meta_shapes(lambda: UNet(UNetConfig.from_shapes(official))) == official


def test_default_config_is_that_of_the_released_models() -> None:
    assert UNetConfig.from_shapes(parity.layouts()["unet"]) == UNetConfig()


def test_widths_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="not a LatentSync UNet"):
        UNetConfig.from_shapes(parity.layouts()["vae_tiny"])


def test_every_weight_is_held_by_a_layer_of_ops() -> None:
    names = ("Linear", "Conv2d", "GroupNorm", "LayerNorm")
    ops = SimpleNamespace(**{name: type(f"Given{name}", (getattr(nn, name),), {}) for name in names})
    with torch.device("meta"):
        unet = UNet(ops=ops)
    holders = [module for module in unet.modules() if list(module.parameters(recurse=False))]
    assert len(holders) > 500
    assert {type(module).__name__ for module in holders} == {f"Given{name}" for name in names}


def test_attention_is_the_given_one(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    heads_seen: list[int] = []

    def counted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        heads_seen.append(heads)
        return attend(query, key, value, heads)

    given: Attend = counted
    UNet(synthetic.UNET, attention=given)(inputs[0], 1, inputs[1])
    # 16 spatial transformers and 20 motion modules, two attentions each
    assert heads_seen == [8] * 2 * (16 + 20)


def test_shallow_pass_is_the_end_of_the_whole_one(unet: UNet, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, heard = inputs
    whole, deep = unet(x, 500, heard)
    shallow, returned = unet(x, 500, heard, deep)
    assert returned is deep
    assert torch.equal(shallow, whole)
    assert whole.shape == (2, 4, FRAMES, SIDE, SIDE)


def test_shallow_pass_takes_the_deep_state_as_it_is(unet: UNet, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, heard = inputs
    _, deep = unet(x, 500, heard)
    assert not torch.equal(unet(x, 500, heard, torch.zeros_like(deep))[0], unet(x, 500, heard, deep)[0])


def test_timesteps_may_differ_within_a_batch(unet: UNet, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, heard = inputs
    both, _ = unet(x, torch.tensor([10, 900]), heard)
    for i, timestep in enumerate((10, 900)):
        alone, _ = unet(x[i : i + 1], timestep, heard[i : i + 1])
        # float32 kernels sum in another order for another batch
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_resnet_norms_span_the_frames() -> None:
    """A frame is normalised otherwise beside louder ones: diffusers' motion UNet normalises each alone."""
    norm = nn.GroupNorm(2, 4)
    clip = parity.normal(1, 1, 4, 3, 2, 2) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    torch.testing.assert_close(unfold(norm_over_clip(norm, fold(clip), batch=1), batch=1), norm(clip))
