"""Loading weights: exactly the network, or one error that names the fault."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import Linear

from latentsync import checkpoint, synthetic
from latentsync.checkpoint import Checkpoint
from latentsync.errors import WeightsError

KEY = "conv_out.bias"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    synthetic.write_models(folder)
    return folder


@pytest.fixture
def unet_file(models: Path) -> Path:
    return models / "latentsync" / "1.5" / "latentsync_unet.safetensors"


@pytest.fixture
def tensors(unet_file: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(unet_file).tensors


def test_loader_reads_written_models_and_metadata(models: Path, unet_file: Path) -> None:
    assert checkpoint.read(unet_file).metadata == {
        "latentsync_version": "1.5",
        "latentsync_weights": "synthetic",
        "resolution": "256",
    }
    unet = checkpoint.load_unet(unet_file)
    assert not unet.training
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in unet.state_dict().values())
    whisper = checkpoint.load_whisper(models / "latentsync" / "whisper" / "tiny.pt")
    assert {tensor.dtype for tensor in whisper.state_dict().values()} == {torch.float32}
    checkpoint.load_vae(models / "vae" / "sd-vae-ft-mse.safetensors")
    assert not list(models.rglob("*.part"))


def test_loader_written_models_equal_memory(unet_file: Path) -> None:
    written, held = checkpoint.load_unet(unet_file).state_dict(), synthetic.unet().state_dict()
    assert all(torch.equal(written[key], held[key]) for key in held)


def test_loader_casts_to_requested_dtype(unet_file: Path) -> None:
    unet = checkpoint.load_unet(unet_file, dtype=torch.float16)
    assert {tensor.dtype for tensor in unet.state_dict().values()} == {torch.float16}


def test_loader_unwraps_official_pickle(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "latentsync_unet.pt"
    torch.save({"global_step": 7, "state_dict": tensors}, path)
    read = checkpoint.read(path)
    assert read.metadata == {"global_step": 7}
    assert torch.equal(checkpoint.load_unet(read).state_dict()[KEY], tensors[KEY])


def test_loader_reads_legacy_pickle(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert checkpoint.read(path).shapes == {"weight": (2,)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop(KEY), r"1 missing \(conv_out.bias\)"),
        (lambda held: held.update(extra=torch.ones(1)), r"1 unexpected \(extra\)"),
        (lambda held: held.update({KEY: torch.ones(5)}), r"1 of the wrong shape \(conv_out.bias \[5\] for \[4\]\)"),
        (
            lambda held: held.update({"conv_in.weight": torch.ones(32, 12, 3, 3)}),
            r"1 of the wrong shape \(conv_in.weight \[32, 12, 3, 3\] for \[32, 13, 3, 3\]\)",
        ),
        (
            lambda held: held.pop("down_blocks.0.resnets.0.conv1.weight"),
            "not a LatentSync UNet: 'down_blocks.0.resnets.0.conv1.weight'",
        ),
    ],
    ids=["missing", "extra", "shape", "input channels", "another network"],
)
def test_loader_refuses_other_weights(
    tmp_path: Path, tensors: dict[str, torch.Tensor], change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    path = tmp_path / "other.safetensors"
    held = dict(tensors)
    change(held)
    save_file(held, path)
    with pytest.raises(WeightsError, match=said) as raised:
        checkpoint.load_unet(path)
    assert str(path) in str(raised.value)


def test_loader_error_counts_faults_and_names_a_few() -> None:
    with pytest.raises(WeightsError, match=r"4 missing \(a, b, c, \.\.\.\); 1 unexpected \(z\)"):
        checkpoint.check_shapes({"z": (1,)}, dict.fromkeys("abcd", (1,)), "name")


class Runs:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x00" * 4096])
def test_loader_refuses_file_that_is_no_checkpoint(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=path.name):
        checkpoint.read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_loader_refuses_truncated_files(tmp_path: Path, models: Path, share: float) -> None:
    for whole in filter(Path.is_file, models.rglob("*")):
        cut = tmp_path / whole.name
        content = whole.read_bytes()
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError, match=f"{whole.name}: .*download it again"):
            checkpoint.read(cut)


def test_loader_runs_no_code_of_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pt"
    torch.save({"state_dict": {KEY: Runs()}}, path)
    with pytest.raises(WeightsError, match="code in it is not run"):
        checkpoint.read(path)
    path.write_bytes(pickle.dumps(Runs(), protocol=2))
    with pytest.raises(WeightsError, match="code in it is not run"):
        checkpoint.read(path)
    assert not Path("ran").exists()


def test_loader_names_missing_file_and_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        checkpoint.read(tmp_path / "nowhere.pt")
    (tmp_path / "weights.gguf").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"not '\.gguf'"):
        checkpoint.read(tmp_path / "weights.gguf")


def test_loader_refuses_incomplete_whisper(models: Path) -> None:
    whole = checkpoint.read(models / "latentsync" / "whisper" / "tiny.pt")
    with pytest.raises(WeightsError, match="no dims"):
        checkpoint.load_whisper(Checkpoint(whole.path, whole.tensors))
    less = {key: tensor for key, tensor in whole.tensors.items() if key != "encoder.ln_post.bias"}
    with pytest.raises(WeightsError, match=r"1 missing \(encoder.ln_post.bias\)"):
        checkpoint.load_whisper(Checkpoint(whole.path, less, whole.metadata))


def test_loader_weight_left_on_meta_is_an_error() -> None:
    with pytest.raises(WeightsError, match="left empty"):
        checkpoint.build(lambda: Linear(1, 1), Linear(1, 1, device="meta").state_dict(), name="hollow")
