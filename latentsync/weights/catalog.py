"""The two released models, and the networks for scoring and occlusion: resolution, files, sizes, hashes.

The values come from ByteDance's repositories on the Hugging Face hub, at fixed revisions. Both versions have the same
keys and shapes. Only the hash, or metadata from `convert`, shows the version.
"""

from __future__ import annotations

from dataclasses import dataclass

Version = str
"""A key of `MODELS`. To add a version, add an entry there."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weights file: its URL, and its path on the disk.

    `path` is the path for the download, relative to the models folder. The first part of the path is the kind of
    folder. `aliases` lists other accepted paths for the same network, preferred paths first.
    `size_bytes` and `sha256` describe the published file.
    `equivalents` are published files with the same network in another layout.
    `wrapper_path` is the path of the file in the `checkpoints` folder of ComfyUI-LatentSyncWrapper and similar packs.
    """

    path: str
    url: str
    size_bytes: int
    sha256: str
    license: str
    aliases: tuple[str, ...] = ()
    equivalents: tuple[WeightFile, ...] = ()
    wrapper_path: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A released LatentSync model.

    `resolution` is the side of the square crop in pixels.
    `min_vram_bytes` is the smallest device memory with which this version is the default.
    `rank` orders the versions by quality. The default is the version with the highest rank that fits the device.
    """

    version: Version
    resolution: int
    unet: WeightFile
    min_vram_bytes: int
    rank: int


@dataclass(frozen=True, slots=True)
class UnverifiedFile:
    """A weights file with an unknown size and hash.

    LatentSync cannot verify such a file, and therefore never downloads the file.
    """

    path: str
    url: str
    license: str
    size: str
    wrapper_path: str = ""


HUB = "https://huggingface.co"


def _hub(repo: str, revision: str, name: str) -> str:
    return f"{HUB}/{repo}/resolve/{revision}/{name}"


REPO_15 = ("ByteDance/LatentSync-1.5", "32a20d29aead0498e3e885e90dbbe8027da1b61b")


REPO_16 = ("ByteDance/LatentSync-1.6", "c42c7e6c8e9c213626389fa7d9a3c444b8536353")


REPO_VAE = ("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")


REPO_VAE_LDM = ("stabilityai/sd-vae-ft-mse-original", "629b3ad3030ce36e15e70c5db7d91df0d60c627f")


MODELS: dict[Version, ModelSpec] = {
    "1.5": ModelSpec(
        version="1.5",
        resolution=256,
        unet=WeightFile(
            path="latentsync/1.5/latentsync_unet.pt",
            aliases=("latentsync/1.5/latentsync_unet.safetensors",),
            url=_hub(*REPO_15, "latentsync_unet.pt"),
            size_bytes=5_072_348_184,
            sha256="6440b49a7ccceff56cdc001f5f17605216337f5bbd66fa360139768926e23f51",
            license="OpenRAIL++",
            wrapper_path="latentsync_unet.pt",
        ),
        min_vram_bytes=4_000_000_000,
        rank=1,
    ),
    "1.6": ModelSpec(
        version="1.6",
        resolution=512,
        unet=WeightFile(
            path="latentsync/1.6/latentsync_unet.pt",
            aliases=("latentsync/1.6/latentsync_unet.safetensors",),
            url=_hub(*REPO_16, "latentsync_unet.pt"),
            size_bytes=5_072_222_488,
            sha256="0a478e89eb660f82da4c35dbdde8a5adfb27f99d1b4e50edd03729e1e98316d3",
            license="OpenRAIL++",
            wrapper_path="latentsync_unet.pt",
        ),
        min_vram_bytes=10_000_000_000,  # over twice the count in docs/gpu.md
        rank=2,
    ),
}


WHISPER = WeightFile(
    path="latentsync/whisper/tiny.pt",
    url=_hub(*REPO_15, "whisper/tiny.pt"),
    size_bytes=75_572_083,
    sha256="65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    license="MIT",
    wrapper_path="whisper/tiny.pt",
)


VAE_LDM = WeightFile(
    path="vae/vae-ft-mse-840000-ema-pruned.safetensors",
    url=_hub(*REPO_VAE_LDM, "vae-ft-mse-840000-ema-pruned.safetensors"),
    size_bytes=334_641_190,
    sha256="735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75",
    license="MIT",
)


VAE = WeightFile(
    path="vae/sd-vae-ft-mse.safetensors",
    aliases=(VAE_LDM.path,),
    equivalents=(VAE_LDM,),
    url=_hub(*REPO_VAE, "diffusion_pytorch_model.safetensors"),
    size_bytes=334_643_276,
    sha256="a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
    license="MIT",
    wrapper_path="vae/diffusion_pytorch_model.safetensors",
)


FACE_LANDMARKER = WeightFile(
    path="latentsync/face_landmarker.task",
    url=(
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
    ),
    size_bytes=3_758_596,
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    license="Apache-2.0",
)


SELFIE_SEGMENTER = WeightFile(
    path="latentsync/selfie_multiclass_256x256.tflite",
    url=(
        "https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_multiclass_256x256/float32/1/"
        "selfie_multiclass_256x256.tflite"
    ),
    size_bytes=16_371_837,
    sha256="c6748b1253a99067ef71f7e26ca71096cd449baefa8f101900ea23016507e0e0",
    license="Apache-2.0",
)


SYNCNET = WeightFile(
    path="latentsync/syncnet/syncnet_v2.model",
    url="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
    size_bytes=54_573_114,
    sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
    license="research use, CC-BY",
    wrapper_path="auxiliary/syncnet_v2.model",
)


STABLE_SYNCNET = UnverifiedFile(
    path="latentsync/syncnet/stable_syncnet.pt",
    url=f"{HUB}/ByteDance/LatentSync-1.6/resolve/main/stable_syncnet.pt",
    license="OpenRAIL++",
    size="about 1.6 GB",
    wrapper_path="stable_syncnet.pt",
)


CLIPSEG = UnverifiedFile(
    path="latentsync/clipseg-rd64-refined.safetensors",
    url=f"{HUB}/CIDAS/clipseg-rd64-refined/resolve/main/model.safetensors",
    license="Apache-2.0",
    size="about 600 MB",
)


EXTRAS: dict[str, WeightFile] = {"syncnet": SYNCNET, "occlusion": SELFIE_SEGMENTER}
"""Name for the command `download` -> file that no version needs."""
