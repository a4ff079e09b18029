"""The plain stages are an independent second writing of the same arithmetic."""

from __future__ import annotations

import pytest
import torch

from benchmarks import plain
from latentsync.faces.alignment import keep_mask
from latentsync.models.constants import LATENT_SCALE
from latentsync.sampling import conditioning, denoise
from latentsync.sampling.sampler import clip_limit
from latentsync.sampling.settings import SamplerSettings
from latentsync.weights import random_init
from tests.support import tiny_networks

FRAMES, SIDE, RESOLUTION = 5, 16, 64


def relative(given: torch.Tensor, expected: torch.Tensor) -> float:
    return float((given - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_latents_are_those_of_the_product(guidance: float) -> None:
    unet = random_init.unet()
    noise, conditioning = (
        tiny_networks.normal(1, 1, 4, 1, SIDE, SIDE),
        tiny_networks.normal(2, 1, 9, FRAMES, SIDE, SIDE),
    )
    audio = tiny_networks.normal(3, 1, FRAMES, 50, 384)
    settings = SamplerSettings(num_inference_steps=4, guidance_scale=guidance, cache_interval=1)
    *_, ours = denoise.denoise(unet, noise, conditioning, audio, settings, clip_limit(2))
    weights = plain.nested(unet.state_dict())
    theirs = plain.denoise(weights, noise, conditioning, audio, settings)
    assert relative(ours, theirs) < 1e-4  # float32 sums in another order, carried through four steps
    other = plain.denoise(weights, noise, conditioning, audio.flip(1), settings)
    assert relative(other, theirs) > 1e-2


def test_plain_weights_are_the_networks_own() -> None:
    unet = random_init.unet()
    own = plain.nested(unet.state_dict())["down_blocks"]["0"]["resnets"]["0"]["conv1"]["weight"]
    assert own.data_ptr() == unet.down_blocks[0].resnets[0].conv1.weight.data_ptr()


def test_conditioning_is_that_of_the_product() -> None:
    codec = random_init.vae()
    crops = (127 * (1 + tiny_networks.normal(4, FRAMES, 3, RESOLUTION, RESOLUTION).tanh())).to(torch.uint8)
    keep = torch.from_numpy(keep_mask(RESOLUTION))
    theirs = plain.condition(codec.vae, conditioning.normalize_pixels(crops), keep)
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(conditioning.prepare_conditioning(crops, keep, codec), theirs, atol=1e-5, rtol=1e-4)


def test_decoding_is_that_of_the_product() -> None:
    codec, latents = random_init.vae(), tiny_networks.normal(5, FRAMES, 4, 8, 8)
    ours = codec.decode(latents / LATENT_SCALE)
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(plain.decode(codec.vae, latents), ours, atol=1e-4, rtol=1e-4)
