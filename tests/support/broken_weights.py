"""Attacks with broken model files, and with pickles that contain code."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from latentsync.weights import loader, random_init
from latentsync.weights.catalog import WHISPER
from tests.support.scene import Attack, Misuse, Scene

UNET = Path("latentsync/1.5/latentsync_unet.safetensors")
FIRST = "down_blocks.0.resnets.0.conv1.weight"


class Runs:
    """A pickle that creates a file when it is loaded. The file is the proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self._proof),))


class Evaluates(Runs):
    def __reduce__(self) -> tuple[Any, ...]:
        return (builtins.eval, (f"__import__('os').mkdir({str(self._proof)!r})",))


def converts(path: Path) -> list[str]:
    return ["convert", str(path), "-o", str(path.with_name("converted.safetensors")), "--version", "1.5"]


def of(name: str, content: bytes | str) -> Callable[[Scene], list[str]]:
    return lambda scene: converts(scene.written(name, content))


def header(entries: object, claimed: int | None = None) -> bytes:
    """A safetensors file with this header and a few bytes after it."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + bytes(64)


def saved(content: Callable[[Path], object], *, legacy: bool = False) -> Callable[[Scene], list[str]]:
    """`convert` of a .pt file with this content. The content gets the path for its proof."""

    def arguments(scene: Scene) -> list[str]:
        path = scene.folder / "unet.pt"
        torch.save(content(scene.folder / PROOF), path, _use_new_zipfile_serialization=not legacy)
        return converts(path)

    return arguments


def pickled(content: Callable[[Path], object]) -> Callable[[Scene], list[str]]:
    return lambda scene: converts(scene.written("unet.pt", pickle.dumps(content(scene.folder / PROOF))))


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Scene], list[str]]:
    """`convert` of a valid UNet with one change."""

    def arguments(scene: Scene) -> list[str]:
        tensors = load_file(scene.models / UNET)
        change(tensors)
        save_file(tensors, scene.folder / "unet.safetensors")
        return converts(scene.folder / "unet.safetensors")

    return arguments


def cut(scene: Scene) -> list[str]:
    return converts(scene.written("unet.safetensors", (scene.models / UNET).read_bytes()[:200_000]))


def cut_pickle(scene: Scene) -> list[str]:
    return converts(scene.written("unet.pt", (scene.models / WHISPER.path).read_bytes()[:200_000]))


def without_a_number(scene: Scene) -> list[str]:
    """A models folder whose UNet gives only NaN."""
    models = scene.folder / "models"
    for path in [path for path in scene.models.rglob("*") if path.is_file()]:
        link = models / path.relative_to(scene.models)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    tensors = load_file(scene.models / UNET)
    tensors["conv_in.bias"] = torch.full_like(tensors["conv_in.bias"], float("nan"))
    (models / UNET).unlink()
    save_file(tensors, models / UNET, {"latentsync_weights": "synthetic", "latentsync_version": "1.5"})
    return [argument for argument in scene.run("--models", models) if argument != "--miniature"]


def whisper(dims: Mapping[str, object] | None) -> Callable[[Scene], object]:
    def call(scene: Scene) -> object:
        return loader.load_whisper(loader.Checkpoint(scene.folder / "tiny.pt", {}, {"dims": dims}))

    return call


def vae_of(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Scene], object]:
    def call(scene: Scene) -> object:
        tensors = random_init.vae().vae.state_dict()
        change(tensors)
        return loader.load_vae(loader.Checkpoint(scene.folder / "vae.safetensors", tensors))

    return call


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def reshaped(key: str, *shape: int) -> Callable[[dict[str, torch.Tensor]], object]:
    """Replace one tensor by one of this shape that needs no memory."""
    return lambda tensors: tensors.update({key: torch.zeros(1).expand(shape)})


def absurd_pickle(_: Path) -> dict[str, torch.Tensor]:
    """A file of a few bytes whose first layer claims to have a billion channels."""
    return {f"down_blocks.{i}.resnets.0.conv1.weight": torch.zeros(1).expand(10**9, 10**9) for i in range(4)}


PROOF = "code-was-run"
UNREADABLE = r"cannot be read as weights"
NOT_RUN = r"LatentSync ran no code from this file"

WEIGHTS = [
    Attack("weights of no bytes (.pt)", of("unet.pt", b""), f"unet.pt {UNREADABLE}"),
    Attack("weights of no bytes (.safetensors)", of("unet.safetensors", b""), f"unet.safetensors {UNREADABLE}"),
    Attack("words named .pt", of("unet.pt", "words"), "unet.pt "),
    Attack("weights of another kind", of("unet.onnx", "words"), "unet.onnx is not a weights file"),
    Attack("weights that are not there", lambda s: converts(s.folder / "unet.pt"), "unet.pt does not exist"),
    Attack("safetensors cut short", cut, f"unet.safetensors {UNREADABLE}"),
    Attack(".pt cut short", cut_pickle, f"unet.pt {UNREADABLE}"),
    Attack("a header of 2^63 bytes", of("unet.safetensors", header({}, 2**63)), UNREADABLE),
    Attack("a header longer than its file", of("unet.safetensors", header({}, 5000)), UNREADABLE),
    Attack("a header that is no JSON", of("unet.safetensors", struct.pack("<Q", 8) + b"notjson!"), UNREADABLE),
    Attack(
        "a header fifty thousand lists deep",
        of("unet.safetensors", struct.pack("<Q", 50_000) + b"[" * 50_000),
        UNREADABLE,
    ),
    Attack("a tensor beyond the end of its file", of("unet.safetensors", header(entry([1000], [0, 4000]))), UNREADABLE),
    Attack("a tensor of 2^80 numbers", of("unet.safetensors", header(entry([2**40, 2**40], [0, 64]))), UNREADABLE),
    Attack("a tensor of a negative size", of("unet.safetensors", header(entry([-16], [0, 64]))), UNREADABLE),
    Attack("a tensor of an unknown type", of("unet.safetensors", header(entry([16], [0, 64], "F1024"))), UNREADABLE),
    Attack("a pickle that runs a command", saved(Runs), f"unet.pt .*{NOT_RUN}"),
    Attack("a pickle that evaluates code", saved(Evaluates), f"unet.pt .*{NOT_RUN}"),
    Attack(
        "code hidden among weights", saved(lambda proof: {"conv_in.weight": torch.zeros(1), "x": Runs(proof)}), NOT_RUN
    ),
    Attack("code in an old torch's format", saved(Runs, legacy=True), NOT_RUN),
    Attack("code in a bare pickle", pickled(Runs), "unet.pt "),
    Attack("a .pt that holds a list", saved(lambda _: [1, 2]), "contains no model weights"),
    Attack("a .pt that holds words", saved(lambda _: {"a": "b"}), "has 1 entries, but only 0 of them are weights"),
    Attack("a UNet without its first layer", changed(lambda tensors: tensors.pop("conv_in.weight")), "conv_in.weight"),
    Attack("a UNet with one layer more", changed(lambda tensors: tensors.update(extra=torch.zeros(1))), "extra"),
    Attack(
        "a UNet 33 channels wide",
        changed(lambda tensors: tensors.update({FIRST: torch.zeros(33, 32, 3, 3)})),
        "not a LatentSync UNet.*33",
    ),
    Attack(
        "a UNet 0 channels wide",
        changed(lambda tensors: tensors.update({FIRST: torch.zeros(0, 32, 3, 3)})),
        "not a LatentSync UNet.*0",
    ),
    Attack("a UNet a thousand million channels wide", saved(absurd_pickle), "not a LatentSync UNet"),
    Attack(
        "weights that are no numbers, to convert",
        changed(lambda tensors: tensors["conv_in.bias"].fill_(float("nan"))),
        "NaN or infinite values .*conv_in.bias",
    ),
    Attack("weights that are no numbers, to run", without_a_number, "NaN"),
]

NETWORKS = [
    Misuse("a Whisper without dims", whisper(None), "tiny.pt is not a Whisper file"),
    Misuse("a Whisper with half its dims", whisper({"n_mels": 80}), "tiny.pt .*n_audio_ctx"),
    Misuse(
        "a Whisper of a thousand million layers",
        whisper({**random_init.WHISPER_DIMS, "n_audio_layer": 10**9}),
        "n_audio_layer",
    ),
    Misuse(
        "a Whisper whose sizes are words",
        whisper({**random_init.WHISPER_DIMS, "n_audio_state": "wide"}),
        "n_audio_state",
    ),
    Misuse(
        "a VAE 33 channels wide",
        vae_of(reshaped("encoder.down_blocks.0.resnets.0.conv1.weight", 33, 32, 3, 3)),
        "vae.safetensors: The file is not a Stable Diffusion 1.x VAE",
    ),
    Misuse(
        "a VAE a thousand million channels wide",
        vae_of(reshaped("encoder.down_blocks.0.resnets.0.conv1.weight", 10**9, 3, 3, 3)),
        "vae.safetensors: ",
    ),
    Misuse(
        "a VAE without its decoder",
        vae_of(lambda tensors: [tensors.pop(key) for key in [*tensors] if key.startswith("decoder.")]),
        "vae.safetensors .*missing",
    ),
]
