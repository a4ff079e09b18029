"""The VAE that diffusers runs: its results, and the layouts of its files."""

from __future__ import annotations

import pytest
import torch

from latentsync.models.vae import SLICE_IMAGES, DiffusersVAE, autoencoder, diffusers_names
from latentsync.weights import random_init
from latentsync.weights.loader import meta_shapes
from tests.support import tiny_networks

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def vae() -> DiffusersVAE:
    return random_init.vae()


def test_vae_encodes_to_posterior_mean(vae: DiffusersVAE) -> None:
    images = tiny_networks.normal(1, 1, 3, 32, 32)
    latents = vae.encode(images)
    assert latents.shape == (1, 4, 4, 4)
    assert torch.equal(latents, vae.vae.encode(images).latent_dist.mode())


def test_vae_cast_logs_nothing(vae: DiffusersVAE, caplog: pytest.LogCaptureFixture) -> None:
    """diffusers' own `to` logs a warning about every cast."""
    assert vae.to("cpu", torch.float64).decode(torch.zeros(1, 4, 8, 8)).dtype == torch.float64
    vae.to("cpu", torch.float32)
    assert not caplog.records


def test_vae_slices_give_the_same(vae: DiffusersVAE) -> None:
    latents = tiny_networks.normal(1, SLICE_IMAGES + 1, 4, 4, 4)
    one_by_one = torch.cat([vae.decode(latents[i : i + 1]) for i in range(len(latents))])
    # float32 kernels sum in another order for another batch
    torch.testing.assert_close(vae.decode(latents), one_by_one, atol=1e-4, rtol=1e-4)
    assert one_by_one.shape == (SLICE_IMAGES + 1, 3, 32, 32)


def test_vae_runs_in_dtype_of_its_weights() -> None:
    vae = random_init.vae().to("cpu", torch.bfloat16)
    assert vae.decode(tiny_networks.normal(1, 1, 4, 4, 4)).dtype == torch.bfloat16


def test_vae_layout_is_of_diffusers() -> None:
    shapes = {key: tuple(shape) for key, shape in tiny_networks.layouts()["vae_tiny"].items()}
    assert meta_shapes(autoencoder(shapes)) == shapes


def test_vae_old_attention_names_are_converted() -> None:
    names = list(tiny_networks.layouts()["vae_tiny"])
    old = names
    for current_name, old_name in OLD_NAMES.items():
        old = [name.replace(f".{current_name}.", f".{old_name}.") for name in old]
    assert old != names
    assert list(diffusers_names({name: torch.empty(0) for name in old})) == names


def test_vae_original_layout_is_converted() -> None:
    """The layout of CompVis's latent-diffusion, in which vae-ft-mse-840000-ema-pruned.safetensors is published."""
    shapes = {key: tuple(shape) for key, shape in tiny_networks.layouts()["vae_tiny"].items()}
    weights = {key: torch.full(shape, float(i)) for i, (key, shape) in enumerate(shapes.items())}
    original = {compvis_name(key): tensor for key, tensor in weights.items()}
    for name in ("q", "k", "v", "proj_out"):
        for side in ("encoder", "decoder"):
            key = f"{side}.mid.attn_1.{name}.weight"
            original[key] = original[key][:, :, None, None]
    assert not original.keys() & {
        key for key in weights if ".conv_in." not in key and "quant_conv" not in key and "conv_out." not in key
    }
    renamed = diffusers_names(original)
    assert renamed.keys() == weights.keys()
    assert all(torch.equal(renamed[key], weights[key]) for key in weights)


COMPVIS = {
    "encoder.down_blocks.0.": "encoder.down.0.",
    "encoder.down_blocks.1.": "encoder.down.1.",
    "encoder.down_blocks.2.": "encoder.down.2.",
    "encoder.down_blocks.3.": "encoder.down.3.",
    "decoder.up_blocks.0.": "decoder.up.3.",
    "decoder.up_blocks.1.": "decoder.up.2.",
    "decoder.up_blocks.2.": "decoder.up.1.",
    "decoder.up_blocks.3.": "decoder.up.0.",
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "resnets.": "block.",
    "downsamplers.0.": "downsample.",
    "upsamplers.0.": "upsample.",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.attentions.0.group_norm": "mid.attn_1.norm",
    "mid_block.attentions.0.to_q": "mid.attn_1.q",
    "mid_block.attentions.0.to_k": "mid.attn_1.k",
    "mid_block.attentions.0.to_v": "mid.attn_1.v",
    "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
}


def compvis_name(key: str) -> str:
    for name, original in COMPVIS.items():
        key = key.replace(name, original)
    return key
