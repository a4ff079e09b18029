"""Measure the speed and the VRAM of a device: VAE encoding, sampling and VAE decoding, with synthetic weights.

Each case runs the stages of a real run, with noise instead of a face. The benchmark downloads nothing and reads no
files.
"""

from __future__ import annotations

import gc
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from . import __version__
from .audio.features import STATE_RATE, AudioFeatures
from .audio.waveform import SAMPLE_RATE, Waveform
from .compositing.compositor import DECODE_FRAMES
from .errors import LatentSyncError
from .faces.face_track import FaceTrack
from .models.constants import (
    AUDIO_POSITIONS,
    AUDIO_STATES,
    AUDIO_WIDTH,
    LATENT_CHANNELS,
    LATENT_SCALE,
    LATENT_STRIDE,
    WINDOW_FRAMES,
)
from .models.protocols import VAE, Operations
from .models.unet import UNet, UNetConfig
from .models.vae import autoencoder_of
from .oom import BatchLimit, is_out_of_memory
from .pipeline import LipSyncPipeline, vae_dtype
from .sampling.denoise import denoise
from .sampling.sampler import CFG_BATCH
from .sampling.settings import SPEEDS, SamplerSettings
from .video.frame_source import ImageBatch
from .video.timeline import MODEL_RATE
from .weights import loader, random_init
from .weights.catalog import MODELS
from .weights.fp8 import FP8, PRECISIONS, CastingOperations
from .weights.locate import device_memory

FULL_VAE_CHANNELS = (128, 256, 512, 512)  # channels of sd-vae-ft-mse, which has two layers in each block
TINY_DIVISOR = 4  # the tiny networks run at a quarter of the resolution
TINY_STEPS = 4  # denoising steps of the tiny networks at every speed
FRAMES = (WINDOW_FRAMES, 250)  # one window, and ten seconds of video
WINDOWS = (1, 2, 4)
FACE_POINTS = ((0.35, 0.4), (0.65, 0.4), (0.5, 0.6))  # (x, y) of the brows and the nose, as shares of the frame size
DRIVER_FILE = Path("/proc/driver/nvidia/version")
PROFILE_ROWS = 20
GB = 1e9


class Case(NamedTuple):
    """One combination of settings to measure.

    version: a key of `MODELS`.
    precision: a key of `weights.fp8.PRECISIONS`.
    speed: a key of `SPEEDS`.
    frames: length of the video.
    windows: batch size of the UNet.
    """

    version: str
    precision: str
    speed: str
    frames: int
    windows: int

    def __str__(self) -> str:
        return f"{self.version} {self.precision} {self.speed}, {self.frames} frames, {self.windows} at once"


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one case.

    encode, sample, decode: seconds for one second of video. None: not measured.
    allocated_bytes: peak of the tensors on the device. None: the device does not report this value.
    reserved_bytes: peak of the memory that PyTorch's allocator reserves on the device.
    note: the reason for a case without measurement, as a sentence.
    is_skipped: whether the time limit ended before this case.
    """

    case: Case
    encode: float | None = None
    sample: float | None = None
    decode: float | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    note: str = ""
    is_skipped: bool = False

    @property
    def total(self) -> float | None:
        """Seconds for one second of video."""
        if self.encode is None or self.sample is None or self.decode is None:
            return None
        return self.encode + self.sample + self.decode

    def to_json(self) -> dict[str, object]:
        values = {name: getattr(self, name) for name in self.__slots__ if name != "case"}
        return {**self.case._asdict(), "total": self.total, **values}


def list_cases(*, quick: bool = False) -> list[Case]:
    """All cases, the most useful first. A clip of one window has only cases with one window in a batch.

    Args:
        quick: only the clips of one window in fp16, at each version and speed.
    """
    speeds = sorted(SPEEDS, key=lambda speed: speed != "balanced")
    cases = [
        Case(version, precision, speed, frames, windows)
        for precision, frames, windows, speed, version in product(PRECISIONS, FRAMES, WINDOWS, speeds, MODELS)
        if windows == 1 or frames > WINDOW_FRAMES
    ]

    def rank(case: Case) -> int:
        """0: one window in fp16. 1: one window in other precisions. 2: longer clips in fp16. 3: all others."""
        is_short, is_fp16 = case.frames == WINDOW_FRAMES, case.precision == "fp16"
        if is_short and (is_fp16 or case.speed == "balanced"):
            return 0 if is_fp16 else 1
        return 2 if is_fp16 and case.speed == "balanced" else 3

    cases.sort(key=rank)
    return [case for case in cases if rank(case) == 0] if quick else cases


def run_cases(
    cases: Iterable[Case],
    device: torch.device,
    *,
    tiny: bool = False,
    minutes: float = float("inf"),
    started: float | None = None,
) -> Iterator[Row]:
    """Measure the cases in order. A case that does not fit into VRAM, or that the device does not support, becomes a
    row with a note.

    Args:
        tiny: use small untrained networks at a quarter of the resolution, and few steps.
        minutes: time limit. The run skips cases that would probably end after this limit.
        started: value of `time.monotonic()` at the start of the time limit. None: the start of this run.
    """
    deadline = (monotonic() if started is None else started) + 60 * minutes
    known_seconds: dict[tuple[str, ...], float] = {}
    pipeline, loaded = None, ""
    for case in cases:
        expected = known_seconds.get(case[:3], 0.0) * float(case.frames / MODEL_RATE)
        if monotonic() + expected > deadline:
            yield Row(case, note=f"Not measured within {minutes:g} minutes.", is_skipped=True)
            continue
        try:
            if pipeline is None or loaded != case.precision:
                pipeline, loaded = None, case.precision
                free_memory(device)
                pipeline = synthetic_pipeline(case.precision, device, tiny=tiny)
            row = measure(pipeline, case, tiny=tiny)
        except (LatentSyncError, RuntimeError, MemoryError, TypeError) as error:
            reason = (str(error).partition("\n")[0] or type(error).__name__).rstrip(".")
            problem = "Out of memory" if is_out_of_memory(error) else f"{case.precision} does not run on this device"
            row = Row(case, note=f"{problem}: {reason}.")
        # after `except`: the traceback keeps the tensors alive
        free_memory(device)
        if row.total is not None:
            known_seconds[case[:3]] = row.total
        yield row


def synthetic_pipeline(precision: str, device: torch.device, *, tiny: bool = False) -> LipSyncPipeline:
    """A pipeline of synthetic networks in one precision, at full size or tiny. `measure` sets the version."""
    stored = PRECISIONS[precision]
    dtype = computing_dtype(stored)
    config = random_init.UNET_CONFIG if tiny else UNetConfig()
    channels, layers = (random_init.VAE_CHANNELS, 1) if tiny else (FULL_VAE_CHANNELS, 2)
    unet_state = random_init.repeated_state(lambda: UNet(config), device, dtype)
    vae_state = random_init.repeated_state(autoencoder_of(channels, layers), device, vae_dtype(device, dtype))
    return LipSyncPipeline(
        unet=unet_in(unet_state, stored, dtype),
        whisper=random_init.whisper().to(device),
        vae=loader.load_vae(loader.Checkpoint(Path("synthetic VAE"), vae_state)),
        spec=MODELS["1.5"],
        device=device,
        dtype=dtype,
    )


def computing_dtype(stored: torch.dtype) -> torch.dtype:
    """The dtype of a UNet's computations for weights of a dtype. With fp8 weights, the UNet computes in fp16."""
    return torch.float16 if stored == FP8 else stored


def unet_in(state: dict[str, Tensor], stored: torch.dtype, dtype: torch.dtype) -> UNet:
    """A UNet that stores its weights in one dtype, which can be fp8, and computes in another dtype."""
    operations = cast("Operations", CastingOperations if stored == FP8 else nn)
    return loader.load_unet(loader.Checkpoint(Path("synthetic UNet"), state), operations, stored, norm_dtype=dtype)


def measure(pipeline: LipSyncPipeline, case: Case, *, tiny: bool = False) -> Row:
    """Measure one case: run a short warm-up, then all stages once."""
    spec = MODELS[case.version]
    spec = replace(spec, resolution=spec.resolution // TINY_DIVISOR) if tiny else spec
    limit = BatchLimit(CFG_BATCH * case.windows, "the UNet")
    pipeline = replace(pipeline, spec=spec, batch_limit=limit)
    settings = SamplerSettings().at_speed(case.speed)
    settings = replace(settings, num_inference_steps=TINY_STEPS) if tiny else settings
    warm_up = replace(settings, num_inference_steps=2, cache_interval=2, guidance_end=1.0)
    timed_stages(pipeline, min(case.frames, case.windows * WINDOW_FRAMES), warm_up)
    note = ""
    if limit.max_batch < CFG_BATCH * case.windows:
        if case.windows > 1:
            return Row(case, note=f"Out of memory: {case.windows} windows do not fit into VRAM at once.")
        note = "The guidance passes do not fit into VRAM at once. They were computed one after the other."
    backend: Any = torch.get_device_module(pipeline.device)
    reports_memory = hasattr(backend, "max_memory_allocated")
    if reports_memory:
        free_memory(pipeline.device)
        backend.reset_peak_memory_stats(pipeline.device)
    seconds = timed_stages(pipeline, case.frames, settings)
    encode, sample, decode = (stage / float(case.frames / MODEL_RATE) for stage in seconds)
    allocated, reserved = (
        (backend.max_memory_allocated(pipeline.device), backend.max_memory_reserved(pipeline.device))
        if reports_memory
        else (None, None)
    )
    return Row(case, encode, sample, decode, allocated, reserved, note)


def timed_stages(pipeline: LipSyncPipeline, frames: int, settings: SamplerSettings) -> tuple[float, float, float]:
    """Seconds of VAE encoding, sampling and VAE decoding of a clip. Sampling includes the cropping of the frames."""
    resolution, device = pipeline.spec.resolution, pipeline.device
    generator = torch.Generator().manual_seed(0)
    frame = torch.rand(1, resolution, resolution, 3, generator=generator)
    source = ImageBatch(frame.expand(frames, -1, -1, -1), MODEL_RATE)
    points = torch.tensor(FACE_POINTS, dtype=torch.float64).expand(frames, -1, -1).numpy() * resolution
    states = round(frames * STATE_RATE / MODEL_RATE)
    features = AudioFeatures(
        torch.randn(states, AUDIO_STATES, AUDIO_WIDTH, generator=generator),
        Waveform(torch.zeros(1, round(frames * SAMPLE_RATE / MODEL_RATE)), SAMPLE_RATE),
    )
    assert pipeline.vae is not None
    vae = TimedVAE(pipeline.vae, device)
    start = perf_counter()
    lips = replace(pipeline, vae=vae).sample(FaceTrack(source, points), features, settings)
    synchronize(device)
    sampled = perf_counter() - start
    for latents in lips.latents.split(DECODE_FRAMES):
        vae.decode(latents.float() / LATENT_SCALE).cpu()
    return vae.encode_seconds, sampled - vae.encode_seconds, vae.decode_seconds


class TimedVAE:
    """A VAE that adds up its running time."""

    def __init__(self, vae: VAE, device: torch.device) -> None:
        self._vae, self._device = vae, device
        self.encode_seconds = self.decode_seconds = 0.0

    def encode(self, images: Tensor) -> Tensor:
        latents, seconds = self._timed(self._vae.encode, images)
        self.encode_seconds += seconds
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        images, seconds = self._timed(self._vae.decode, latents)
        self.decode_seconds += seconds
        return images

    def _timed(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, float]:
        synchronize(self._device)
        start = perf_counter()
        result = network(inputs)
        synchronize(self._device)
        return result, perf_counter() - start


def profile_step(precision: str, version: str, device: torch.device, *, tiny: bool = False) -> str:
    """PyTorch's profile of one full UNet step with guidance, as a table with the slowest operations first."""
    pipeline = synthetic_pipeline(precision, device, tiny=tiny)
    side = MODELS[version].resolution // LATENT_STRIDE // (TINY_DIVISOR if tiny else 1)
    noise = torch.randn(1, LATENT_CHANNELS, 1, side, side).to(device)
    conditioning = torch.randn(1, 2 * LATENT_CHANNELS + 1, WINDOW_FRAMES, side, side).to(device, pipeline.dtype)
    audio = torch.randn(1, WINDOW_FRAMES, AUDIO_POSITIONS * AUDIO_STATES, AUDIO_WIDTH).to(device, pipeline.dtype)
    limit = BatchLimit(CFG_BATCH, "the UNet")
    assert pipeline.unet is not None
    steps = denoise(pipeline.unet, noise, conditioning, audio, SamplerSettings(cache_interval=1), limit)
    next(steps)
    synchronize(device)
    activities = torch.profiler.supported_activities()
    with torch.profiler.profile(activities=activities) as profiler:
        next(steps)
        synchronize(device)
    sort_by = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    return profiler.key_averages().table(sort_by=sort_by, row_limit=PROFILE_ROWS, max_name_column_width=60)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its computations."""
    torch.get_device_module(device).synchronize()


def free_memory(device: torch.device) -> None:
    """Free unused memory of the device."""
    gc.collect()
    backend: Any = torch.get_device_module(device)
    if hasattr(backend, "empty_cache"):
        backend.empty_cache()


def describe_machine(device: torch.device) -> dict[str, str]:
    """The device and the software, for a bug report."""
    backend: Any = torch.get_device_module(device)
    properties = backend.get_device_properties(device) if hasattr(backend, "get_device_properties") else None
    memory = device_memory(device)
    driver = getattr(properties, "driver_version", "")
    if not driver and DRIVER_FILE.is_file():
        match = re.search(r"\s(\d{3}\.[\d.]+)\s", DRIVER_FILE.read_text(encoding="utf-8"))
        driver = match[1] if match else ""
    return {
        "device": getattr(properties, "name", "") or f"{device.type} ({platform.machine()})",
        "memory": "unknown" if memory is None else f"{memory / GB:.1f} GB",
        "torch": torch.__version__,
        "driver": str(driver) or "unknown",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "latentsync": __version__,
    }


def markdown(machine: dict[str, str], rows: Sequence[Row], *, tiny: bool = False) -> str:
    """The table of the results, for a bug report and for docs/speed.md."""
    networks = "tiny untrained networks" if tiny else "full-size networks with synthetic weights"
    lines = [
        f"**{machine['device']}**: " + ", ".join(f"{key} {value}" for key, value in machine.items() if key != "device"),
        "",
        f"Seconds per second of video ({MODEL_RATE} frames), {networks}. VRAM is the peak, weights included.",
        "",
        "| version | precision | speed | frames | windows at once | seconds | encode | sampling | decode | VRAM, GB "
        "| reserved, GB | note |",
        "|---" * 12 + "|",
    ]
    for row in rows:
        if not row.is_skipped:
            seconds = [_cell(value) for value in (row.total, row.encode, row.sample, row.decode)]
            memory = [_cell(None if size is None else size / GB) for size in (row.allocated_bytes, row.reserved_bytes)]
            lines.append(f"| {' | '.join([*map(str, row.case), *seconds, *memory, row.note])} |")
    skipped = [row for row in rows if row.is_skipped]
    if skipped:
        lines += ["", f"{skipped[0].note.rstrip('.')}: {'; '.join(str(row.case) for row in skipped)}."]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
