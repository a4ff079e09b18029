"""The codec over diffusers' VAE."""

from __future__ import annotations

import pytest
import torch

from latentsync import synthetic
from latentsync.checkpoint import meta_shapes
from latentsync.models.vae import SLICE_IMAGES, DiffusersCodec, autoencoder, diffusers_names
from tests import parity

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def codec() -> DiffusersCodec:
    return synthetic.vae()


def test_encodes_to_the_posterior_mean(codec: DiffusersCodec) -> None:
    images = parity.normal(1, 1, 3, 32, 32)
    latents = codec.encode(images)
    assert latents.shape == (1, 4, 4, 4)
    assert torch.equal(latents, codec.vae.encode(images).latent_dist.mode())


def test_slices_are_invisible(codec: DiffusersCodec) -> None:
    latents = parity.normal(1, SLICE_IMAGES + 1, 4, 4, 4)
    each = torch.cat([codec.decode(latents[i : i + 1]) for i in range(len(latents))])
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(codec.decode(latents), each, atol=1e-4, rtol=1e-4)
    assert each.shape == (SLICE_IMAGES + 1, 3, 32, 32)


def test_runs_in_the_dtype_of_its_weights() -> None:
    codec = synthetic.vae().to("cpu", torch.bfloat16)
    assert codec.decode(parity.normal(1, 1, 4, 4, 4)).dtype == torch.bfloat16


def test_layout_is_diffusers_own() -> None:
    shapes = {key: tuple(shape) for key, shape in parity.layouts()["vae_tiny"].items()}
    assert meta_shapes(lambda: autoencoder(shapes)) == shapes


def test_old_attention_names_are_todays() -> None:
    names = list(parity.layouts()["vae_tiny"])
    old = names
    for today, before in OLD.items():
        old = [name.replace(f".{today}.", f".{before}.") for name in old]
    assert old != names
    assert list(diffusers_names({name: torch.empty(0) for name in old})) == names
