"""Clips of any length out of a short one, without encoding it again."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def loop_video(source: Path, target: Path, seconds: float) -> None:
    """Repeat the packets of a video, keyframe to end, until it lasts `seconds`."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        tick = stream.time_base or Fraction(1, 1000)
        lap = max(packet.pts + packet.duration for packet in packets) - min(packet.pts for packet in packets)
        times = [(packet.pts, packet.dts) for packet in packets]
        with av.open(str(target), "w") as out:
            copy = out.add_stream_from_template(stream)
            for turn in range(int(np.ceil(seconds / (lap * tick)))):
                for packet, (pts, dts) in zip(packets, times, strict=True):
                    if (pts + turn * lap) * tick >= seconds:
                        continue
                    packet.pts, packet.dts, packet.time_base = pts + turn * lap, dts + turn * lap, tick
                    packet.stream = copy
                    out.mux(packet)


def loop_sound(source: Path, target: Path, seconds: float) -> None:
    """Repeat a WAV file until it lasts `seconds`."""
    with wave.open(str(source), "rb") as sound:
        parameters = sound.getparams()
        data = sound.readframes(parameters.nframes)
    wanted = round(seconds * parameters.framerate) * parameters.nchannels * parameters.sampwidth
    with wave.open(str(target), "wb") as out:
        out.setparams(parameters)
        out.writeframes((data * (wanted // len(data) + 1))[:wanted])
