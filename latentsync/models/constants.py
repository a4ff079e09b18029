"""Shapes of latents and audio features that every LatentSync model shares."""

from __future__ import annotations

LATENT_CHANNELS = 4


LATENT_STRIDE = 8  # pixels per latent, each way


LATENT_SCALE = 0.18215  # Stable Diffusion 1.x: latents = VAE mean * LATENT_SCALE


WINDOW_FRAMES = 16  # frames that the UNet sees at once


MAX_OVERLAP = 12  # frames that two windows may share: each window still adds a few


MEL_RATE = 100  # mel frames per second that Whisper hears; also how finely speech is told from silence


AUDIO_WIDTH = 384  # Whisper tiny's state


AUDIO_STATES = 5  # states kept per position: the embedding and each of the four blocks


AUDIO_POSITIONS = 10  # positions that one frame hears: c-4 .. c+5
