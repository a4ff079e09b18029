"""Converted weights: equal values, memory-mapped, and with the version in the metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentsync.errors import UsageError, WeightsError
from latentsync.progress import Progress, run
from latentsync.weights import catalog, loader, locate, metadata, random_init
from latentsync.weights.convert import PRECISIONS, convert
from tests.support import tiny_networks
from tests.support.paths import REPOSITORY

PEAK = """
import sys
from pathlib import Path
from latentsync.weights.convert import convert
from latentsync.models.unet import UNet
from latentsync.weights.loader import meta_shapes
import safetensors.torch

meta_shapes(UNet)  # torch 2.6 imports 30 MB of sympy for the first network on the meta device

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10

before, peak = anonymous(), 0
for step in convert(Path(sys.argv[1]), Path(sys.argv[2]), "fp16", "1.5"):
    if not step.what.startswith("verifying"):  # reads 16 MB at a time
        peak = max(peak, anonymous())
print(peak - before)
"""

FULL = """
import resource
import signal
import sys
from pathlib import Path
from latentsync.errors import StorageError
from latentsync.weights.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    list(convert(Path(sys.argv[1]), Path(sys.argv[2]), "fp16", "1.5"))
except StorageError as error:
    print(error)
"""


def run_script(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small UNet as ByteDance publishes it."""
    path = tmp_path_factory.mktemp("source") / "latentsync_unet.pt"
    torch.save({"global_step": 1, "state_dict": random_init.unet().state_dict()}, path)
    return path


@pytest.mark.parametrize("precision", PRECISIONS)
def test_convert_gives_the_output_of_the_source(source: Path, tmp_path: Path, precision: str) -> None:
    dtype = PRECISIONS[precision]
    target = tmp_path / "unet.safetensors"
    assert run(convert(source, target, precision, "1.6")) == "1.6"
    converted, original = loader.load_unet(target), loader.load_unet(source, dtype=dtype)
    state = converted.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in original.state_dict().items())
    x, audio = tiny_networks.normal(1, 1, 13, 2, 8, 8).to(dtype), tiny_networks.normal(2, 1, 2, 50, 384).to(dtype)
    with torch.no_grad():
        (made, _), (wanted, _) = (
            unet(x, 500, unet.precompute_audio_kv(audio), do_cfg=True) for unet in (converted, original)
        )
    assert torch.equal(made, wanted)


def test_convert_writes_version_and_source_hash(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "fp16", "1.6"))
    assert metadata.read(target) == {
        "latentsync_version": "1.6",
        "latentsync_weights": "converted",
        "latentsync_source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "resolution": "512",
    }
    assert locate.identify_unet(target).version == "1.6"
    assert target.stat().st_size < 0.6 * source.stat().st_size


def test_converted_file_opens_in_other_readers(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "bf16", "1.5"))
    assert load_file(target).keys() == loader.read(source).tensors.keys()
    with safe_open(target, framework="pt") as file:
        assert file.get_tensor("conv_in.weight").dtype == torch.bfloat16


def test_converted_file_is_memory_mapped(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "fp16", "1.5"))
    unet = loader.load_unet(target)
    places = sorted(tensor.data_ptr() for tensor in unet.state_dict().values())
    assert places[-1] - places[0] < target.stat().st_size, "all weights lie in one piece, which is the file"
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(target) in mapped.read_text(encoding="utf-8")


def test_convert_keeps_the_mark_of_untrained_weights(source: Path, tmp_path: Path) -> None:
    untrained = tmp_path / "untrained.safetensors"
    save_file(loader.read(source).tensors, untrained, random_init.METADATA)
    run(convert(untrained, tmp_path / "half.safetensors", "fp16", "1.5"))
    assert metadata.read(tmp_path / "half.safetensors")[metadata.WEIGHTS] == metadata.SYNTHETIC


def test_convert_yields_progress_to_the_end(source: Path, tmp_path: Path) -> None:
    steps = list(convert(source, tmp_path / "unet.safetensors", "fp16", "1.5"))
    writing = [step for step in steps if step.what == "writing unet.safetensors"]
    assert writing[-1] == Progress("writing unet.safetensors", writing[-1].total, writing[-1].total)


def test_convert_leaves_nothing_when_cancelled(source: Path, tmp_path: Path) -> None:
    work = convert(source, tmp_path / "unet.safetensors", "fp16", "1.5")
    while not next(work).what.startswith("writing"):
        pass
    work.close()
    assert not list(tmp_path.iterdir())


def test_convert_refuses_values_that_overflow(source: Path, tmp_path: Path) -> None:
    state = dict(loader.read(source).tensors)
    state["conv_out.bias"] = torch.full_like(state["conv_out.bias"], 1e6)
    large, target = tmp_path / "large.pt", tmp_path / "large.safetensors"
    torch.save({"state_dict": state}, large)
    with pytest.raises(
        WeightsError,
        match=r"NaN or infinite values after conversion to fp16 \(weight conv_out.bias\). Use --precision bf16",
    ):
        run(convert(large, target, "fp16", "1.5"))
    assert not target.exists()
    run(convert(large, target, "bf16", "1.5"))


def test_convert_refuses_nan(source: Path, tmp_path: Path) -> None:
    state = dict(loader.read(source).tensors)
    state["conv_out.bias"] = torch.full_like(state["conv_out.bias"], float("nan"))
    damaged = tmp_path / "damaged.pt"
    torch.save({"state_dict": state}, damaged)
    with pytest.raises(WeightsError, match=r"NaN or infinite values after conversion to bf16 .* The file is damaged"):
        run(convert(damaged, tmp_path / "out.safetensors", "bf16", "1.5"))
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.pt"]


def test_convert_refuses_a_damaged_official_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the official size with another hash."""
    model = catalog.MODELS["1.6"]
    unet = dataclasses.replace(model.unet, size_bytes=source.stat().st_size)
    monkeypatch.setitem(catalog.MODELS, "1.6", dataclasses.replace(model, unet=unet))
    with pytest.raises(WeightsError, match=r"is damaged. The SHA-256 is \w+, not 0a478e89\w+"):
        run(convert(source, tmp_path / "out.safetensors", "fp16"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setitem(
        catalog.MODELS, "1.6", dataclasses.replace(model, unet=dataclasses.replace(unet, sha256=digest))
    )
    assert run(convert(source, tmp_path / "out.safetensors", "fp16")) == "1.6"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of files")
def test_convert_reports_a_full_disk(source: Path, tmp_path: Path) -> None:
    """Every write beyond a megabyte of a file fails, as on a full disk."""
    done = run_script(FULL, source, tmp_path / "unet.safetensors")
    assert done.stdout.startswith(f"{tmp_path / 'unet.safetensors'} cannot be written (")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_convert_needs_no_more_memory_than_the_target(tmp_path: Path) -> None:
    """The source is memory-mapped: its pages are not anonymous memory."""
    source = tmp_path / "large.pt"
    state = random_init.unet_state()
    torch.save({"state_dict": state}, source)
    target_bytes = sum(tensor.numel() * 2 for tensor in state.values())
    done = run_script(PEAK, source, tmp_path / "out.safetensors")
    # 15 MB: the network without weights, one tensor while it is checked, and Python's own objects.
    # A copy of the source would add 20 MB.
    assert int(done.stdout) < target_bytes + (15 << 20)


def test_convert_refuses_other_networks(tmp_path: Path) -> None:
    source = tmp_path / "whisper.pt"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, source)
    with pytest.raises(WeightsError, match=r"whisper.pt: The file is not a LatentSync UNet"):
        run(convert(source, tmp_path / "out.safetensors", "fp16", "1.5"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.pt", "does not end in .safetensors"),
        ("there.safetensors", "exists already"),
        ("no/unet.safetensors", "The folder .* does not exist. Create this folder"),
    ],
)
def test_convert_refuses_bad_targets(source: Path, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match=said):
        run(convert(source, tmp_path / name, "fp16", "1.5"))
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"
