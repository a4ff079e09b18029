"""Converted weights: the same values in half the disk space, with metadata."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentsync import checkpoint, hub, marks, synthetic
from latentsync.convert import NAMES, convert
from latentsync.errors import StorageError, UsageError, WeightsError
from latentsync.progress import Progress, run
from tests.support import tiny_networks


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small UNet in the form that ByteDance publishes."""
    path = tmp_path_factory.mktemp("source") / "latentsync_unet.pt"
    torch.save({"global_step": 1, "state_dict": synthetic.unet().state_dict()}, path)
    return path


@pytest.mark.parametrize("dtype", NAMES, ids=NAMES.values())
def test_convert_run_equals_pickle_to_the_bit(source: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "1.6", dtype))
    converted, original = checkpoint.load_unet(target), checkpoint.load_unet(source, dtype=dtype)
    state = converted.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in original.state_dict().items())
    x, audio = tiny_networks.normal(1, 1, 13, 2, 8, 8).to(dtype), tiny_networks.normal(2, 1, 2, 50, 384).to(dtype)
    with torch.no_grad():
        (made, _), (wanted, _) = (
            unet(x, 500, unet.precompute_audio_kv(audio), do_cfg=True) for unet in (converted, original)
        )
    assert torch.equal(made, wanted)


def test_convert_writes_metadata(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "1.6", torch.float16))
    assert marks.read(target) == {
        "latentsync_version": "1.6",
        "latentsync_weights": "converted",
        "latentsync_source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "resolution": "512",
    }
    assert run(hub.identify(target)) == "1.6"
    assert target.stat().st_size < 0.6 * source.stat().st_size


def test_convert_file_opens_with_safetensors(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "1.5", torch.bfloat16))
    assert load_file(target).keys() == checkpoint.read(source).tensors.keys()
    with safe_open(target, framework="pt") as file:
        assert file.get_tensor("conv_in.weight").dtype == torch.bfloat16


def test_convert_file_is_mapped_not_copied(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "unet.safetensors"
    run(convert(source, target, "1.5", torch.float16))
    unet = checkpoint.load_unet(target)
    places = sorted(tensor.data_ptr() for tensor in unet.state_dict().values())
    assert places[-1] - places[0] < target.stat().st_size, "all weights lie in one piece, which is the file"
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(target) in mapped.read_text(encoding="utf-8")


def test_convert_keeps_mark_of_untrained_weights(source: Path, tmp_path: Path) -> None:
    untrained = tmp_path / "untrained.safetensors"
    save_file(checkpoint.read(source).tensors, untrained, synthetic.MARK)
    run(convert(untrained, tmp_path / "half.safetensors", "1.5", torch.float16))
    assert marks.read(tmp_path / "half.safetensors")[marks.WEIGHTS] == marks.SYNTHETIC


def test_convert_steps_reach_the_end(source: Path, tmp_path: Path) -> None:
    steps = list(convert(source, tmp_path / "unet.safetensors", "1.5", torch.float16))
    writing = [step for step in steps if step.what == "writing unet.safetensors"]
    assert writing[-1] == Progress("writing unet.safetensors", writing[-1].total, writing[-1].total)


def test_convert_cancel_leaves_nothing(source: Path, tmp_path: Path) -> None:
    work = convert(source, tmp_path / "unet.safetensors", "1.5", torch.float16)
    while not next(work).what.startswith("writing"):
        pass
    work.close()
    assert not list(tmp_path.iterdir())


def test_convert_refuses_values_beyond_fp16(source: Path, tmp_path: Path) -> None:
    state = dict(checkpoint.read(source).tensors)
    state["conv_out.bias"] = torch.full_like(state["conv_out.bias"], 1e6)
    large, target = tmp_path / "large.pt", tmp_path / "large.safetensors"
    torch.save({"state_dict": state}, large)
    with pytest.raises(WeightsError, match=r"large.pt: conv_out.bias has values that F16 cannot hold: use bf16"):
        run(convert(large, target, "1.5", torch.float16))
    assert not target.exists()
    run(convert(large, target, "1.5", torch.bfloat16))


def test_convert_names_full_disk(source: Path, tmp_path: Path) -> None:
    """All writes fail, as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "unet.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"unet.safetensors: cannot be written \(.*No space left"):
        run(convert(source, tmp_path / "unet.safetensors", "1.5", torch.float16))
    assert not list(tmp_path.iterdir())


def test_convert_refuses_file_that_is_no_unet(tmp_path: Path) -> None:
    source = tmp_path / "whisper.pt"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, source)
    with pytest.raises(WeightsError, match=r"whisper.pt: not a LatentSync UNet"):
        run(convert(source, tmp_path / "out.safetensors", "1.5", torch.float16))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.pt", "choose such a name"),
        ("there.safetensors", "is there already"),
        ("no/unet.safetensors", "the folder .* does not exist: make it"),
    ],
)
def test_convert_refuses_bad_target(source: Path, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match=said):
        run(convert(source, tmp_path / name, "1.5", torch.float16))
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"
