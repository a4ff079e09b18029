"""LatentSync as a library: a talking video and new speech in, the same video with the lips following out."""

__version__ = "0.1.0"
