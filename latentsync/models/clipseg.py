"""CLIPSeg by Lüddecke and Ecker (2022), from the library transformers: text-prompted segmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import cannot_import

if TYPE_CHECKING:
    from transformers import CLIPSegForImageSegmentation

HEAD_WIDTH = 64  # of CLIP's text and vision encoders
INPUT_PX = 352  # side of the images that CLIPSeg was trained with
START, END = 49406, 49407  # tokens of CLIP around a text

Shapes = Mapping[str, tuple[int, ...]]


def clipseg(shapes: Shapes) -> Callable[[], CLIPSegForImageSegmentation]:
    """A factory for the network of a state dict. The shapes determine its configuration.

    This function imports transformers, because the factory runs on the meta device.

    Raises:
        KeyError: a weight of CLIPSeg is missing.
        DependencyError: transformers cannot be imported.
    """
    try:
        from transformers import CLIPSegConfig, CLIPSegForImageSegmentation
    except ImportError as error:
        raise cannot_import("transformers", "transformers>=4.50.3", error, 'set "occlusion" to auto') from error
    vision_layers, taps = _count(shapes, "clip.vision_model.encoder.layers."), _count(shapes, "decoder.reduces.")
    patch_px = shapes["clip.vision_model.embeddings.patch_embedding.weight"][-1]
    positions = shapes["clip.vision_model.embeddings.position_embedding.weight"][0]
    text = {
        **_encoder(shapes, "text"),
        "vocab_size": shapes["clip.text_model.embeddings.token_embedding.weight"][0],
        "max_position_embeddings": shapes["clip.text_model.embeddings.position_embedding.weight"][0],
    }
    vision = {
        **_encoder(shapes, "vision"),
        "patch_size": patch_px,
        "image_size": patch_px * round((positions - 1) ** 0.5),
    }
    config = CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=shapes["clip.text_projection.weight"][0],
        reduce_dim=shapes["decoder.film_mul.weight"][0],
        extract_layers=[vision_layers * (tap + 1) // (taps + 1) for tap in range(taps)],
        decoder_intermediate_size=shapes["decoder.layers.0.mlp.fc1.weight"][0],
        use_complex_transposed_convolution="decoder.transposed_convolution.0.weight" in shapes,
    )
    return partial(CLIPSegForImageSegmentation, config)


def set_positions(network: nn.Module) -> None:
    """Fill the tables of positions, which are not in the state dict."""
    for module in network.modules():
        if isinstance(getattr(module, "position_ids", None), Tensor):
            embedding: Any = module
            embedding.position_ids = torch.arange(embedding.position_embedding.num_embeddings)[None]


def encode_texts(network: CLIPSegForImageSegmentation, tokens: list[list[int]], device: torch.device) -> Tensor:
    """Embeddings of texts, for `segment`: (texts, width).

    Args:
        tokens: tokens of CLIP's vocabulary, without the start token and the end token.
    """
    longest = max(map(len, tokens)) + 2
    rows = [[START, *text, *[END] * (longest - 1 - len(text))] for text in tokens]
    ids = torch.tensor(rows, device=device)
    return network.get_conditional_embeddings(batch_size=len(rows), input_ids=ids)


def segment(network: CLIPSegForImageSegmentation, image: Tensor, texts: Tensor) -> Tensor:
    """Probability that each pixel shows the object that each text describes: (texts, 352, 352) in [0, 1].

    The network encodes the image once for all texts.

    Args:
        image: (3, 352, 352), normalized as in CLIPSeg's training.
        texts: (texts, width), from `encode_texts`.
    """
    encoder: Any = network.clip.vision_model
    states = encoder(image[None], output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    taps = [states[layer + 1].expand(len(texts), -1, -1) for layer in network.extract_layers]
    decoder: Any = network.decoder
    return decoder(taps, texts).logits.sigmoid().reshape(len(texts), *image.shape[1:])


def _encoder(shapes: Shapes, name: str) -> dict[str, Any]:
    prefix = f"clip.{name}_model.encoder.layers."
    inner, width = shapes[f"{prefix}0.mlp.fc1.weight"]
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": _count(shapes, prefix),
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
    }


def _count(shapes: Shapes, prefix: str) -> int:
    """The number of layers below a prefix."""
    return len({key[len(prefix) :].partition(".")[0] for key in shapes if key.startswith(prefix)})
