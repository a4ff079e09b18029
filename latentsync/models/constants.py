"""Shapes of latents and audio features that every LatentSync model shares."""

from __future__ import annotations

LATENT_CHANNELS = 4
LATENT_STRIDE = 8  # pixels per latent in each direction
LATENT_SCALE = 0.18215  # Stable Diffusion 1.x: latents = VAE mean * LATENT_SCALE
WINDOW_FRAMES = 16  # frames that the UNet processes together

MEL_RATE = 100  # mel frames per second
AUDIO_WIDTH = 384  # width of Whisper tiny's hidden states
AUDIO_STATES = 5  # hidden states per position: the embedding and the output of each of the four blocks
AUDIO_POSITIONS = 10  # positions that condition one video frame: c-4 .. c+5
