"""The command line with a denoiser and a codec that cost next to nothing: what is left is everything else.

Usage: python -m benchmarks.stand_in run VIDEO AUDIO -o OUT --synthetic ...   (the arguments of `python -m latentsync`)
"""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.stand_in_nodes.networks import Deaf, PoolingCodec
from latentsync.cli import main as command_line
from latentsync.cli import run


def main(arguments: list[str]) -> int:
    synthetic = run._synthetic_models
    run._synthetic_models = lambda: replace(synthetic(), unet=Deaf(), vae=PoolingCodec())
    return command_line.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
