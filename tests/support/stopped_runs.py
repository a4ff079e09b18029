"""Whole runs of the library on the pretend device, each stopped at one of its allocations."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from latentsync.audio.waveform import SAMPLE_RATE, Waveform
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.oom import is_out_of_memory
from latentsync.pipeline import ConditioningStores, LipSyncPipeline
from latentsync.sampling.settings import SamplerSettings
from tests.support.image_clip import Clip
from tests.support.pretend_device import Device
from tests.support.tiny_networks import normal

FRAMES, SIZE, RESOLUTION = 20, 96, 64  # more frames than a window, and than one decoded batch
SETTINGS = SamplerSettings(num_inference_steps=2)  # a full and a shallow pass
ENDS = {"oom": {"smaller batches", "out of memory"}, "cancel": {"cancelled"}}
"""How a run may end: it continues with smaller batches, it raises an error for the user, or it is cancelled."""
MAX_LEVELS = 1  # of 255: smaller batches sum in another order


class CancelledError(Exception):
    """The user cancels."""


@dataclass
class Stops:
    """What happened in runs that were stopped.

    ends: how many ended how.
    faults: what went wrong, and at which allocation.
    """

    allocations: int
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def moving_face() -> FaceTrack:
    clip = Clip(np.random.default_rng(2).integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8))
    return FaceTrack(clip, np.tile(np.array([[36.0, 36], [60, 36], [48, 50]]), (FRAMES, 1, 1)), (), "zero-lag")


@cache
def networks() -> LipSyncPipeline:
    """On the CPU. Untrained weights take seconds to make."""
    return LipSyncPipeline.untrained(resolution=RESOLUTION, device="cpu")


def whole_run(device: Device, track: FaceTrack) -> np.ndarray:
    """Move the networks to the device, encode audio, sample, decode and paste: the frames."""
    pipe = networks()
    unet, whisper, vae = (deepcopy(network).to(device.name) for network in (pipe.unet, pipe.whisper, pipe.vae))
    pipe = replace(
        pipe, unet=unet, whisper=whisper, vae=vae, device=torch.device(device.name), stores=ConditioningStores()
    )
    samples = 0.1 * normal(3, 1, FRAMES * SAMPLE_RATE // 25)
    features, _ = pipe.encode_audio(Waveform(samples, SAMPLE_RATE))
    lips = pipe.sample(track, features, SETTINGS)
    with closing(composite([lips], BlendSettings())) as made:
        return np.stack([output.frame for output in made])


def stopped_runs(device: Device, kind: str, count: int) -> Stops:
    """Stop a run at each of `count` allocations, which are spread over a whole run.

    Args:
        kind: a key of `ENDS`. "oom" lets the allocation fail. "cancel" raises an exception there.
    """
    track, held, threads = moving_face(), device.used_bytes, threading.active_count()
    with device.counting():
        expected = whole_run(device, track)
        made = Stops(device.allocations)

    def cancel() -> None:
        raise CancelledError

    for number in range(1, count + 1):
        at = made.allocations * number // (count + 1)
        stop = {"oom_at": frozenset({at})} if kind == "oom" else {"call_at": {at: cancel}}
        end = "nothing happened"
        with device.counting(**stop):
            try:
                frames = whole_run(device, track)
                if device.failed_at:
                    end = "smaller batches"
                    difference = np.abs(frames.astype(int) - expected).max()
                    made.faults += [f"{at}: {difference} levels from the whole run"] if difference > MAX_LEVELS else []
            except CancelledError:
                end = "cancelled"
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                end = "out of memory"
        made.ends[end] += 1
        if device.used_bytes != held:
            made.faults.append(f"{at}: {device.used_bytes - held} bytes stay on the device ({end})")
        if threading.active_count() > threads:
            made.faults.append(f"{at}: a thread is left ({end})")
    if not np.array_equal(whole_run(device, track), expected):
        made.faults.append("the next run has another result")
    return made
