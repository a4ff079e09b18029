"""The command line with a denoiser and a codec that cost next to nothing: what is left is everything else.

Usage: python -m benchmarks.stand_in run VIDEO AUDIO -o OUT --miniature ...   (the arguments of `python -m latentsync`)
"""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.stand_in_nodes.networks import Deaf, PoolingCodec
from latentsync.cli import main as command_line
from latentsync.cli import run
from latentsync.pipeline import LipSyncPipeline
from latentsync.weights.catalog import MODELS


def main(arguments: list[str]) -> int:
    untrained = LipSyncPipeline.untrained(resolution=MODELS["1.5"].resolution)
    run.load_pipeline = lambda *_args: replace(untrained, unet=Deaf(), vae=PoolingCodec())
    return command_line.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
