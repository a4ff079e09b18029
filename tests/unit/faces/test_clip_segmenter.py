"""CLIPSeg with the real class of transformers, tiny and untrained."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latentsync.errors import WeightsError
from latentsync.faces.clip_segmenter import DEVIATION, MEAN, PROMPTS, ClipSegmenter, on_device
from latentsync.faces.segmenters import open_segmenter
from latentsync.models.clipseg import END, INPUT_PX, START, encode_texts, segment
from latentsync.weights import locate
from latentsync.weights.catalog import CLIPSEG
from latentsync.weights.loader import load_clipseg
from tests.support.paths import REPOSITORY
from tests.support.tiny_clipseg import tiny_clipseg, write_tiny_clipseg

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_clipseg(folder / CLIPSEG.path)
    return folder


def test_load_clipseg_rebuilds_the_network_from_its_shapes(models: Path) -> None:
    made, loaded = tiny_clipseg(), load_clipseg(models / CLIPSEG.path)
    for name in ("text_config", "vision_config"):
        ours, theirs = getattr(loaded.config, name).to_dict(), getattr(made.config, name).to_dict()
        assert {key: value for key, value in ours.items() if value != theirs[key]} == {}
    assert loaded.config.extract_layers == made.config.extract_layers
    for key, tensor in made.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], tensor)


@torch.inference_mode()
def test_segment_equals_the_forward_pass_of_transformers(models: Path) -> None:
    """With the image encoded once, and without padding masks: the texts end at their first end token."""
    made, loaded = tiny_clipseg(), load_clipseg(models / CLIPSEG.path)
    image = torch.rand(3, INPUT_PX, INPUT_PX, generator=torch.Generator().manual_seed(1))
    scores = segment(loaded, image, encode_texts(loaded, list(PROMPTS.values()), CPU))
    assert scores.shape == (len(PROMPTS), INPUT_PX, INPUT_PX)
    for score, tokens in zip(scores, PROMPTS.values(), strict=True):
        ids = torch.tensor([[START, *tokens, END]])
        logits = made(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=image[None]).logits
        torch.testing.assert_close(score, logits.sigmoid().reshape(score.shape), atol=1e-5, rtol=1e-4)
    assert (scores[0] - scores[1]).abs().max() > 1e-6, "each text gives a score of its own"


def test_clip_segmenter_scores_the_likeliest_text(models: Path) -> None:
    view = np.random.default_rng(1).integers(0, 256, (420, 420, 3), np.uint8)
    locate_file = lambda file: locate.require(file, locate.folders_in(models))  # noqa: E731
    with closing(open_segmenter(locate_file, "fine")) as segmenter:
        score = segmenter.score(view)
        again = segmenter.score(view)
    assert score.shape == (420, 420)
    assert score.dtype == np.float32
    assert score.min() >= 0
    assert score.max() <= 1
    np.testing.assert_array_equal(score, again)
    assert np.abs(score - open_at(models).score(255 - view)).max() > 1e-6


def open_at(models: Path) -> ClipSegmenter:
    return ClipSegmenter(models / CLIPSEG.path, on_device(CPU))


def test_clip_segmenter_moves_its_network_before_each_view(models: Path) -> None:
    calls: list[nn.Module] = []

    def place(network: nn.Module) -> object:
        def load() -> torch.device:
            calls.append(network)
            return CPU

        return load

    segmenter = ClipSegmenter(models / CLIPSEG.path, place)
    for _ in range(2):
        segmenter.score(np.zeros((420, 420, 3), np.uint8))
    assert len(calls) == 2
    assert calls[0] is calls[1]


def test_clip_prompts_are_tokens_of_their_texts() -> None:
    """ComfyUI has CLIP's vocabulary."""
    vocabularies = sorted((REPOSITORY / ".comfyui").glob("*/comfy/sd1_tokenizer/vocab.json"))
    if not vocabularies:
        pytest.skip("needs ComfyUI's files (make venv)")
    words = {number: word for word, number in json.loads(vocabularies[-1].read_text(encoding="utf-8")).items()}
    for text, tokens in PROMPTS.items():
        assert "".join(words[token] for token in tokens).replace("</w>", " ").strip() == text
    assert (words[START], words[END]) == ("<|startoftext|>", "<|endoftext|>")
    assert len(MEAN) == len(DEVIATION) == 3


def test_clip_segmenter_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    folders = locate.folders_in(tmp_path)
    with pytest.raises(WeightsError, match="does not download this file") as caught:
        open_segmenter(lambda file: locate.require(file, folders), "fine")
    assert str(tmp_path / CLIPSEG.path) in str(caught.value)
    assert CLIPSEG.url in str(caught.value)
    assert "Apache-2.0" in str(caught.value)


def test_clip_segmenter_names_a_file_of_other_content(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"other\.safetensors is not CLIPSeg"):
        load_clipseg(path)
    state = load_file(models / CLIPSEG.path)
    del state["decoder.film_add.bias"]
    save_file(state, path)
    with pytest.raises(WeightsError, match="1 missing"):
        load_clipseg(path)
