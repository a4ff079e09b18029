"""Loading weights: strict, and one error that lists what is wrong."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import Linear

from latentsync.errors import WeightsError
from latentsync.weights import loader, random_init
from latentsync.weights.catalog import VAE, WHISPER
from latentsync.weights.loader import Checkpoint
from tests.support.paths import REPOSITORY
from tests.support.synthetic_models import write_models
from tests.support.tiny_clipseg import write_tiny_clipseg

KEY = "conv_out.bias"
LOAD_ALL = """
import sys
from pathlib import Path
import torch
from latentsync.weights.loader import load_clipseg, load_vae, load_whisper

class Guard:
    def find_spec(self, name, path=None, target=None):
        library = name.partition(".")[0] in ("diffusers", "transformers", "whisper")
        assert not library or torch.get_default_device().type != "meta", name

sys.meta_path.insert(0, Guard())
for load, path in zip((load_vae, load_whisper, load_clipseg), sys.argv[1:], strict=True):
    load(Path(path))
print("loaded")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def unet_file(models: Path) -> Path:
    return models / "latentsync" / "1.5" / "latentsync_unet.safetensors"


@pytest.fixture
def tensors(unet_file: Path) -> dict[str, torch.Tensor]:
    return loader.read(unet_file).tensors


def test_load_accepts_written_models(models: Path, unet_file: Path) -> None:
    assert loader.read(unet_file).metadata == {
        "latentsync_version": "1.5",
        "latentsync_weights": "synthetic",
        "resolution": "256",
    }
    unet = loader.load_unet(unet_file)
    assert not unet.training
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in unet.state_dict().values())
    whisper = loader.load_whisper(models / "latentsync" / "whisper" / "tiny.pt")
    assert {tensor.dtype for tensor in whisper.state_dict().values()} == {torch.float32}
    loader.load_vae(models / "vae" / "sd-vae-ft-mse.safetensors")
    assert not list(models.rglob(".latentsync-*"))


def test_written_models_equal_random_init(unet_file: Path) -> None:
    written, held = loader.load_unet(unet_file).state_dict(), random_init.unet().state_dict()
    assert all(torch.equal(written[key], held[key]) for key in held)


def test_load_unet_casts_to_dtype(unet_file: Path) -> None:
    unet = loader.load_unet(unet_file, dtype=torch.float16)
    assert {tensor.dtype for tensor in unet.state_dict().values()} == {torch.float16}


def test_read_unwraps_official_pickles(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "latentsync_unet.pt"
    torch.save({"global_step": 7, "state_dict": tensors}, path)
    read = loader.read(path)
    assert read.metadata == {"global_step": 7}
    assert torch.equal(loader.load_unet(read).state_dict()[KEY], tensors[KEY])


def test_read_accepts_legacy_pickles(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert loader.read(path).shapes == {"weight": (2,)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop(KEY), r"weights of this network: 1 missing \(conv_out.bias\)\."),
        (lambda held: held.update(extra=torch.ones(1)), r"1 unknown \(extra\)"),
        (lambda held: held.update({KEY: torch.ones(5)}), r"1 of another size \(conv_out.bias\)"),
        (
            lambda held: held.update({"conv_in.weight": torch.ones(32, 12, 3, 3)}),
            r"1 of another size \(conv_in.weight\)",
        ),
        (
            lambda held: held.pop("down_blocks.0.resnets.0.conv1.weight"),
            "not a LatentSync UNet. The file has 1243 weights, but the weights of the first layers are missing",
        ),
    ],
    ids=["missing", "extra", "shape", "input channels", "another network"],
)
def test_load_unet_refuses_other_weights(
    tmp_path: Path, tensors: dict[str, torch.Tensor], change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    path = tmp_path / "other.safetensors"
    held = dict(tensors)
    change(held)
    save_file(held, path)
    with pytest.raises(WeightsError, match=said) as raised:
        loader.load_unet(path)
    assert str(path) in str(raised.value)


@pytest.mark.slow
def test_load_imports_no_library_on_meta(models: Path, tmp_path: Path) -> None:
    """torch 2.6 cannot import diffusers on the meta device. Here this process has imported every library already."""
    clipseg = write_tiny_clipseg(tmp_path / "clipseg.safetensors")
    command = [sys.executable, "-c", LOAD_ALL, models / VAE.path, models / WHISPER.path, clipseg]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr


def test_check_shapes_lists_all_differences() -> None:
    with pytest.raises(WeightsError, match=r"4 missing \(a, b, c, \.\.\.\), 1 unknown \(z\)"):
        loader.check_shapes({"z": (1,)}, dict.fromkeys("abcd", (1,)), "name")


class Runs:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x00" * 4096])
def test_read_refuses_other_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=path.name):
        loader.read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_read_refuses_truncated_files(tmp_path: Path, models: Path, share: float) -> None:
    for whole in filter(Path.is_file, models.rglob("*")):
        cut = tmp_path / whole.name
        content = whole.read_bytes()
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError, match=f"{whole.name} cannot be read as weights .*download it again"):
            loader.read(cut)


def test_read_runs_no_code_of_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pt"
    torch.save({"state_dict": {KEY: Runs()}}, path)
    with pytest.raises(WeightsError, match="LatentSync ran no code from this file"):
        loader.read(path)
    path.write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(WeightsError, match="LatentSync ran no code from this file"):
        loader.read(path)
    assert not Path("ran").exists()


def test_read_names_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        loader.read(tmp_path / "nowhere.pt")
    (tmp_path / "weights.gguf").write_bytes(b"")
    with pytest.raises(
        WeightsError, match=r"is not a weights file\. Use a file that ends in \.safetensors, \.pt, \.pth, \.ckpt"
    ):
        loader.read(tmp_path / "weights.gguf")


def test_load_whisper_refuses_incomplete_files(models: Path) -> None:
    whole = loader.read(models / "latentsync" / "whisper" / "tiny.pt")
    with pytest.raises(WeightsError, match="sizes of the model are missing"):
        loader.load_whisper(Checkpoint(whole.path, whole.tensors))
    less = {key: tensor for key, tensor in whole.tensors.items() if key != "encoder.ln_post.bias"}
    with pytest.raises(WeightsError, match=r"1 missing \(encoder.ln_post.bias\)"):
        loader.load_whisper(Checkpoint(whole.path, less, whole.metadata))


def test_build_refuses_weights_on_meta() -> None:
    with pytest.raises(WeightsError, match=r"Internal error.*were not set"):
        loader.build(lambda: Linear(1, 1), Linear(1, 1, device="meta").state_dict(), name="hollow")
