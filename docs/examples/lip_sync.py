"""Lip-sync a video from Python.

Usage: python docs/examples/lip_sync.py VIDEO AUDIO OUTPUT MODELS_FOLDER
"""

import sys

import torch

from latentsync import LipSyncPipeline

video, audio, output, models = sys.argv[1:]
device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
dtype = torch.float32 if device.type == "cpu" else torch.float16

pipe = LipSyncPipeline.from_pretrained(models_dir=models, device=device, dtype=dtype, download=True)
result = pipe(video, audio, num_inference_steps=20, guidance_scale=1.5, seed=1247, progress=True)
result.save(output, crf=18)
