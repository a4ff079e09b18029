"""Coverage-guided fuzzing of what we parse ourselves: landmarks, weights and what files say of themselves, names.

Usage: python -m tests.nightly.faults.fuzz_parsers TARGET [libFuzzer's options], as `make fuzz` does. It needs
requirements-fuzz.txt.
Any exception but the package's own errors is a find, and so is code that runs, or a case that takes long.
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["latentsync", "json"]):
    import numpy as np
    import torch

    from latentsync.audio.reader import read_audio
    from latentsync.cli.outputs import check_output_path
    from latentsync.errors import LatentSyncError
    from latentsync.faces import precomputed
    from latentsync.models.unet import UNetConfig
    from latentsync.models.vae import autoencoder, diffusers_names
    from latentsync.output.formats import format_for_suffix
    from latentsync.output.run_record import _without_folders
    from latentsync.output.video_writer import VideoWriter
    from latentsync.video.frame_source import ImageBatch
    from latentsync.video.timeline import build_timeline
    from latentsync.video.video_file import VideoFile
    from latentsync.weights import loader, metadata

FOLDER = Path(tempfile.mkdtemp())
SOURCE = ImageBatch(torch.zeros(2, 48, 64, 3), Fraction(25))


def stored(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def landmarks_file(data: bytes) -> None:
    precomputed.from_comfyui(precomputed.read_json(stored("face.json", data)), SOURCE)


def landmarks_value(data: bytes) -> None:
    """Nested values of every kind, as a node may receive them."""
    given = atheris.FuzzedDataProvider(data)
    points = [[number(given), number(given)] for _ in range(given.ConsumeIntInRange(0, 3))] * 160
    face = {given.PickValueInList(["landmarks_xy", "x"]): points, "score": number(given)}
    frames = [[face] * given.ConsumeIntInRange(0, 2)] * given.ConsumeIntInRange(0, 3)
    precomputed.from_comfyui({"frames": frames, "image_size": [number(given), number(given)]}, SOURCE)


def number(given: atheris.FuzzedDataProvider) -> object:
    kind = given.ConsumeIntInRange(0, 5)
    if kind == 0:
        return given.ConsumeInt(40)
    if kind == 1:
        return given.ConsumeUnicode(8)
    if kind == 2:
        return None
    return given.ConsumeFloat() if kind == 3 else given.ConsumeFloatInRange(-1000, 1000)


def safetensors(data: bytes) -> None:
    path = stored("unet.safetensors", len(data).to_bytes(8, "little") + data + bytes(64) if data[:1] == b"{" else data)
    metadata.read(path)
    loader.load_unet(path)


def pickle_file(data: bytes) -> None:
    loader.load_unet(loader.read(stored("unet.pt", data)))


def shapes(data: bytes) -> None:
    """Networks of any width that a file may claim, built without memory."""
    given = atheris.FuzzedDataProvider(data)
    widths = [given.ConsumeInt(8) for _ in range(4)]
    claimed = {f"down_blocks.{i}.resnets.0.conv1.weight": (width,) for i, width in enumerate(widths)}
    UNetConfig.from_shapes(claimed)
    names = {given.ConsumeUnicode(40): torch.zeros(1) for _ in range(3)}
    diffusers_names(names)
    blocks = {f"encoder.down_blocks.{i}.resnets.0.conv1.weight": (width,) for i, width in enumerate(widths)}
    loader.meta_shapes(autoencoder(blocks))


def names(data: bytes) -> None:
    text = atheris.FuzzedDataProvider(data).ConsumeUnicodeNoSurrogates(80)
    _without_folders(text, FOLDER)
    if "\0" not in text:
        format_for_suffix(Path(text).suffix)
        check_output_path(FOLDER / text, [FOLDER])


def video(data: bytes) -> None:
    """FFmpeg's own parsers are not instrumented, only our use of their results."""
    source = VideoFile(stored("clip.mp4", data))
    build_timeline(source, Fraction(1))
    for frame in source.read(range(min(source.frame_count, 3))):
        assert isinstance(frame, np.ndarray)


def sound(data: bytes) -> None:
    read_audio(stored("sound.wav", data))


TARGETS: dict[str, Callable[[bytes], object]] = {
    "landmarks-file": landmarks_file,
    "landmarks-value": landmarks_value,
    "safetensors": safetensors,
    "pickle": pickle_file,
    "shapes": shapes,
    "names": names,
    "video": video,
    "sound": sound,
}


def seeds() -> dict[str, list[bytes]]:
    """Valid input of each kind, from which the fuzzer starts."""
    face = {"landmarks_xy": [[x % 20, x % 30] for x in range(478)], "score": 0.5}
    header = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}).encode()
    wav = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 100, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 64)
    clip, weights = FOLDER / "seed.mp4", FOLDER / "seed.pt"
    with VideoWriter(clip, rate=Fraction(25), height=16, width=16) as writer:
        for _ in range(3):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    torch.save({"conv_in.weight": torch.zeros(4)}, weights)
    return {
        "landmarks-file": [json.dumps({"frames": [[face], []], "image_size": [48, 64]}).encode()],
        "safetensors": [struct.pack("<Q", len(header)) + header + bytes(64), header],
        "pickle": [weights.read_bytes()],
        "video": [clip.read_bytes(), b"YUV4MPEG2 W16 H16 F25:1\nFRAME\n" + bytes(384)],
        "sound": [wav + bytes(64)],
    }


def guarded(target: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        try:
            target(data)
        except LatentSyncError:
            return

    return one


def main() -> None:
    name = sys.argv.pop(1)
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds().get(name, [])):
        (corpus / f"seed {number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], guarded(TARGETS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
