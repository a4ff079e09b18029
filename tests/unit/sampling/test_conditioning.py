"""Conditioning: the noise of a seed, and the order of the channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latentsync.models.constants import LATENT_SCALE
from latentsync.sampling.conditioning import prepare_conditioning, sample_noise


class AveragingVAE:
    """Latents are the means of 8 x 8 pixels."""

    def encode(self, images: Tensor) -> Tensor:
        means = torch.nn.functional.avg_pool2d(images, 8)
        return torch.cat([means, means[:, :1]], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_noise_is_torch_randn_of_seed() -> None:
    state = torch.get_rng_state()
    noise = sample_noise(1247, 256)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1247)
        assert torch.equal(noise, torch.randn(1, 4, 1, 32, 32))


def test_conditioning_is_mask_masked_reference() -> None:
    crops = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
    keep = torch.zeros(16, 16)
    keep[:8] = 1
    conditioning = prepare_conditioning(crops, keep, AveragingVAE()).transpose(0, 1)[None]
    assert conditioning.shape == (1, 9, 2, 2, 2)
    mask, masked, reference = conditioning[0].split([1, 4, 4])
    assert mask.tolist() == [[[[1, 1], [0, 0]]] * 2]
    assert torch.equal(masked[:, :, 0], reference[:, :, 0])
    assert not masked[:, :, 1].any()
    torch.testing.assert_close(reference.transpose(0, 1), AveragingVAE().encode(crops / 127.5 - 1) * LATENT_SCALE)
