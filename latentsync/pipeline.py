"""The whole method: find the face, encode the speech, sample the mouths, composite and encode.

`LipSyncPipeline` holds the networks. One call runs every stage, and every stage is public.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from .audio.background import BackgroundSettings, check_background
from .audio.driving_audio import prepare_driving_audio
from .audio.features import (
    AudioFeatures,
    AudioSettings,
    VoiceActivity,
    collect_features,
    extract_features,
    num_feature_steps,
)
from .audio.reader import read_audio
from .audio.turns import Turn
from .audio.waveform import Waveform
from .compositing.settings import BlendSettings
from .errors import UsageError
from .faces.clip_segmenter import on_device
from .faces.face_track import FaceTrack
from .faces.identities import Identities, SelectBy
from .faces.segmenters import NO_SEGMENTER, segmenter_entry
from .models.protocols import VAE, AudioEncoder, Denoiser
from .models.syncnet import SyncNet
from .oom import BatchLimit
from .output.result import LipSyncResult
from .progress import ShowProgress, run, run_with_progress, shown
from .sampling.conditioning import ConditioningStore, sample_noise
from .sampling.lip_track import LipTrack, Provenance, SampledLatents
from .sampling.sampler import StepOutput, Workers, build_lip_track, num_sampling_steps, read_windows, sample_windows
from .sampling.settings import SamplerSettings
from .sampling.windows import check_speakers, plan_timeline
from .stages import detect_faces, find_occlusion, load_syncnet, open_video, read_speech, select_face
from .video.frame_source import FrameSource
from .video.timeline import FpsMode, LengthMode, Timeline, check_length
from .weights import loader, locate, miniature, random_init
from .weights.catalog import MODELS, ModelSpec, Version
from .weights.download import download_files
from .weights.locate import Folders

log = logging.getLogger(__name__)

ConditioningStores = WeakKeyDictionary[FaceTrack, ConditioningStore]


@dataclass(frozen=True, eq=False)
class LipSyncPipeline:
    """LatentSync's networks and the stages that use them.

    unet, whisper, vae: the networks, each on its device. `workers` replace the UNet and the VAE.
    spec: version and resolution of the UNet.
    device, dtype: device and precision of the UNet.
    files: paths of the loaded weights, for the run record.
    folders: folders with the weights of the face detectors.
    batch_limit: largest batch of the UNet, in clips. None: one window.
    temp_dir: folder for latents and features that do not fit in RAM. None: the system's temporary folder.
    stores: encoded face crops of each face track, kept as long as the track, for further runs.
    workers: workers that run the UNet and the VAE, such as a cluster, see `sampling.sampler.Workers`.
    """

    unet: Denoiser | None
    whisper: AudioEncoder
    vae: VAE | None
    spec: ModelSpec
    device: torch.device
    dtype: torch.dtype
    files: tuple[Path, ...] = ()
    folders: Folders | None = None
    batch_limit: BatchLimit | None = None
    temp_dir: Path | None = None
    stores: ConditioningStores = field(default_factory=WeakKeyDictionary)
    workers: Workers | None = None

    def __post_init__(self) -> None:
        assert (self.unet is None) == (self.vae is None) == (self.workers is not None), "exactly one of them denoises"

    @classmethod
    def from_pretrained(
        cls,
        version: Version | None = None,
        *,
        models_dir: str | Path | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        unet: str | Path | None = None,
        vae: str | Path | None = None,
        download: bool = False,
        progress: bool = False,
        workers: Workers | None = None,
    ) -> LipSyncPipeline:
        """Load the weights of a version.

        Args:
            version: "1.6" (512 pixels) or "1.5" (256 pixels). None takes the best version on disk that fits the device.
            models_dir: a models folder with ComfyUI's layout. Default: ~/.cache/latentsync.
            device: device of the networks. None takes torch's default device.
            dtype: precision of the UNet and the VAE: torch.float16, bfloat16 or float32.
            unet, vae: files to use in place of the published files.
            download: download missing files first, from Hugging Face and Google.
            progress: show downloads on stderr.
            workers: workers that replace the UNet and the VAE. The pipeline then does not load these two networks.

        Raises:
            WeightsError: files are missing or wrong, or a download failed.
            UsageError: the UNet file is unknown and no version is given.
        """
        device = torch.get_default_device() if device is None else torch.device(device)
        folders = locate.folders_in(Path(models_dir or locate.DEFAULT_MODELS_DIR).expanduser())
        unet = None if unet is None else Path(unet)
        memory_bytes = locate.device_memory(device)
        if download:
            wanted = version or locate.default_version(folders, memory_bytes)
            needed = locate.required_files(wanted, unet, needs_vae=vae is None)
            missing = [file for file in needed if not locate.exists(file, folders)]
            (run_with_progress if progress else run)(download_files(missing, folders))
        files = locate.locate(folders, version, unet, memory_bytes=memory_bytes, needs_vae=vae is None)
        vae = files.vae if vae is None else Path(vae)
        log.info("Loading LatentSync %s on %s in %s: %s", files.spec.version, device, dtype, files.unet)
        return cls(
            unet=None if workers else loader.load_unet(files.unet, dtype=dtype).to(device),
            whisper=loader.load_whisper(files.whisper).to(device),
            vae=None if workers else loader.load_vae(vae).to(device, vae_dtype(device, dtype)),
            spec=files.spec,
            device=device,
            dtype=dtype,
            files=(files.unet, files.whisper, vae),
            folders=folders,
            workers=workers,
        )

    @classmethod
    def untrained(
        cls, *, resolution: int = 128, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> LipSyncPipeline:
        """A pipeline of tiny untrained networks. Every stage runs, but the mouth is noise."""
        device = torch.get_default_device() if device is None else torch.device(device)
        spec = replace(MODELS["1.5"], version="untrained", resolution=resolution)
        return cls(
            unet=random_init.unet().to(device, dtype),
            whisper=random_init.whisper().to(device),
            vae=random_init.vae().to(device, vae_dtype(device, dtype)),
            spec=spec,
            device=device,
            dtype=dtype,
        )

    @classmethod
    def miniature(
        cls,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        workers: Workers | None = None,
    ) -> LipSyncPipeline:
        """The small model of the demo, trained on one face: the lips of scikit-image's astronaut follow the sound.

        Raises:
            WeightsError: the package was installed without this model.
        """
        device = torch.get_default_device() if device is None else torch.device(device)
        return cls(
            unet=None if workers else miniature.unet().to(device, dtype),
            whisper=miniature.whisper().to(device),
            vae=None if workers else miniature.vae().to(device, vae_dtype(device, dtype)),
            spec=replace(MODELS[miniature.VERSION], version="miniature", resolution=miniature.RESOLUTION),
            device=device,
            dtype=dtype,
            files=miniature.files(),
            workers=workers,
        )

    def __call__(
        self,
        video: str | Path | FrameSource,
        audio: str | Path | Waveform,
        *,
        vocals: str | Path | Waveform | None = None,
        offset_ms: int = 0,
        face: SelectBy | FaceTrack = "largest",
        face_index: int = 1,
        turns: Mapping[int, Sequence[Turn]] | None = None,
        speech_of_source: str | Path | Waveform | None = None,
        occlusion: str = NO_SEGMENTER,
        fps: FpsMode = "auto",
        length: LengthMode = "audio (ping-pong)",
        audio_settings: AudioSettings | None = None,
        blend: BlendSettings | None = None,
        protect: np.ndarray | None = None,
        background: str | Path | Waveform | None = None,
        background_settings: BackgroundSettings | None = None,
        speed: str = "balanced",
        progress: ShowProgress | bool = False,
        **sampling: Any,  # noqa: ANN401 - the fields of SamplerSettings
    ) -> LipSyncResult:
        """Give a video new speech. Compositing and encoding start when you ask the result for frames or a file.

        Args:
            video: a video file, or any frame source.
            audio: the speech: a recording, a video with sound, or a waveform. The result plays this sound.
            vocals: recording that drives the lips in place of `audio`, for songs and noisy recordings.
            offset_ms: delay of the lips. Negative values move the lips earlier.
            face: how to select the person, or the face track of an earlier run.
            face_index: number of the person in that order, from 1.
            turns: the turns of each person by number, if several people speak in one recording. See
                `audio.turns.parse_turns_of_people`. `turns` replaces `face_index`.
            speech_of_source: original sound of the video, for `face="speaking"`, see `read_speech`.
            occlusion: "auto" keeps hands and objects in front of the new mouth, see `find_occlusion`.
            fps: frame rate of the result, see `video.timeline.output_rate`.
            length: length of the result, see `video.timeline.build_timeline`.
            audio_settings: treatment of silence, and settings of speech detection.
            blend, protect: see `LipSyncResult`.
            background: sound to mix under the speech: a recording, or a waveform.
            background_settings: level of the background, and its reduction during speech.
            speed: a preset of the sampler: exact, balanced or fast, see `SamplerSettings.at_speed`.
            progress: True draws bars on stderr, see `progress.ShowProgress`.
            sampling: fields of `SamplerSettings`: seed, num_inference_steps, guidance_scale, scheduler, ...

        Raises:
            LatentSyncError: an input is unusable, the video has no face, or the device is out of memory. The message
                says what to do.
        """
        settings = SamplerSettings.from_fields(sampling).at_speed(speed)
        source = open_video(video)
        waveform = audio if isinstance(audio, Waveform) else read_audio(audio)
        check_length(source, waveform.duration_seconds, length)
        background = read_audio(background) if isinstance(background, (str, Path)) else background
        if background is not None:
            check_background(waveform, background)
        if occlusion != NO_SEGMENTER and self.folders is not None:  # without weights, fail before the slow stages
            locate.require(segmenter_entry(occlusion).file, self.folders)
        # without sound, fail before the slow stages too
        speech = read_speech(source, speech_of_source) if face == "speaking" else speech_of_source
        features, _ = self.encode_audio(
            waveform, vocals, offset_ms=offset_ms, settings=audio_settings, progress=progress
        )
        turns = turns or {face_index: ()}
        spoken = [features.during(times) for times in turns.values()]
        if isinstance(face, FaceTrack):
            if len(turns) > 1:
                raise UsageError('"turns" names several people, but "face" is one person. Set "face" to an order.')
            tracks = [face]
        else:
            people = self.detect_faces(source, progress=progress)
            selected = partial(select_face, people, face, speech_of_source=speech)
            tracks = [selected(number).track for number in turns]
        check_speakers(tracks, spoken, settings, fps, length)
        if occlusion != NO_SEGMENTER:
            tracks = [self.find_occlusion(track, occlusion, progress=progress) for track in tracks]
        sample = partial(self.sample, settings=settings, fps=fps, length=length, progress=progress)
        speakers = tuple(map(sample, tracks, spoken))
        mixing = background_settings or BackgroundSettings()
        return LipSyncResult(speakers, blend or BlendSettings(), protect, None, background, mixing)

    def detect_faces(self, video: str | Path | FrameSource, **options: Any) -> Identities:  # noqa: ANN401
        """`detect_faces` with the detector weights of this pipeline's models folder."""
        if self.folders is None:
            raise UsageError(
                "This pipeline has no models folder, so it cannot find the weights of a face detector. "
                "Create one with LipSyncPipeline.from_pretrained, or call latentsync.detect_faces with your folders."
            )
        return detect_faces(video, self.folders, **options)

    def find_occlusion(
        self, track: FaceTrack, occlusion: str = "auto", *, progress: ShowProgress | bool = False
    ) -> FaceTrack:
        """`find_occlusion` with the weights of this pipeline's models folder."""
        if self.folders is None:
            raise UsageError(
                "This pipeline has no models folder, so it cannot find the weights of a segmenter. "
                "Create one with LipSyncPipeline.from_pretrained, or call latentsync.find_occlusion with your folders."
            )
        place = on_device(self.device)
        return find_occlusion(track, self.folders, occlusion, place=place, temp_dir=self.temp_dir, progress=progress)

    def encode_audio(
        self,
        audio: str | Path | Waveform,
        vocals: str | Path | Waveform | None = None,
        *,
        offset_ms: int = 0,
        settings: AudioSettings | None = None,
        progress: ShowProgress | bool = False,
    ) -> tuple[AudioFeatures, VoiceActivity]:
        """Whisper features and detected speech of a recording. The arguments are the same as in `__call__`."""
        settings = settings or AudioSettings()
        audio = audio if isinstance(audio, Waveform) else read_audio(audio)
        vocals = read_audio(vocals) if isinstance(vocals, (str, Path)) else vocals
        driving = prepare_driving_audio(audio, vocals, Fraction(offset_ms, 1000))
        steps = extract_features(driving, self.whisper, settings)
        steps = shown(steps, "audio", num_feature_steps(driving, settings), progress)
        features, speech = collect_features(steps, driving, settings, self.temp_dir)
        return replace(features, params={**features.params, "offset_ms": offset_ms}), speech

    def sample(
        self,
        face_track: FaceTrack,
        features: AudioFeatures,
        settings: SamplerSettings | None = None,
        *,
        fps: FpsMode = "auto",
        length: LengthMode = "audio (ping-pong)",
        sampled: SampledLatents | None = None,
        progress: ShowProgress | bool = False,
    ) -> LipTrack:
        """Sample the latents of the new mouths. The other arguments are the same as in `__call__`.

        Args:
            sampled: result of the same call from an earlier run, see `LipTrack.sampled`. The call then samples nothing.

        Raises:
            FaceError: the face is in no frame of the output.
            WeightsError: the UNet produced NaN.
            OutOfMemoryError: one window does not fit in VRAM or RAM.
        """
        started = monotonic()
        settings = settings or SamplerSettings()
        timeline = plan_timeline(face_track, features, settings, fps, length)
        params: dict[str, Mapping[str, object]] = {
            "faces": face_track.params,
            "audio": features.params,
            "sampler": asdict(settings),
            "timeline": {"fps": fps, "length": length},
        }
        vae = self.workers or self.vae
        assert vae is not None

        def made_in(seconds: float) -> Provenance:
            return Provenance(self.spec.version, self.files, settings.seed, params, round(seconds, 3))

        if sampled is not None:
            waveform = features.waveform.fit_to(timeline.frame_count, timeline.rate)
            index, provenance = sampled.latent_index, made_in(sampled.seconds)
            return LipTrack(face_track, timeline, sampled.latents, index, waveform, vae, provenance=provenance)
        steps, count = self._denoise(face_track, features, timeline, settings)
        steps = shown(steps, "lips", count, progress)
        lips = build_lip_track(steps, face_track, timeline, features.waveform, vae, self.temp_dir)
        return replace(lips, provenance=made_in(monotonic() - started))

    def _denoise(
        self, face_track: FaceTrack, features: AudioFeatures, timeline: Timeline, settings: SamplerSettings
    ) -> tuple[Iterator[StepOutput], int]:
        """Every step of every window, and the number of steps. Workers return only the last step of each window."""
        clip, resolution = (face_track, features, timeline, settings), self.spec.resolution
        count = num_sampling_steps(*clip)
        if self.workers is not None:
            noise = sample_noise(settings.seed, resolution)
            steps = self.workers.denoise(read_windows(*clip, resolution), noise, settings)
            return steps, count // settings.num_inference_steps
        assert self.unet is not None
        assert self.vae is not None
        if face_track not in self.stores:
            self.stores[face_track] = ConditioningStore(face_track.source.frame_count, self.dtype, self.temp_dir)
        steps = sample_windows(
            self.unet,
            self.vae,
            *clip,
            resolution,
            device=self.device,
            dtype=self.dtype,
            batch_limit=self.batch_limit,
            store=self.stores[face_track],
        )
        return steps, count

    def load_syncnet(self, *, download: bool = False, progress: bool = False) -> SyncNet:
        """`load_syncnet` from this pipeline's models folder, on its device, for `LipSyncResult.score`."""
        if self.folders is None:
            raise UsageError(
                "This pipeline has no models folder, so it cannot find the weights of SyncNet. "
                "Create one with LipSyncPipeline.from_pretrained, or call latentsync.load_syncnet."
            )
        return load_syncnet(self.folders, device=self.device, download=download, progress=progress)

    def __repr__(self) -> str:
        return f"LipSyncPipeline({self.spec.version}, {self.spec.resolution} px, {self.dtype} on {self.device})"


def vae_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the VAE for a UNet of `dtype`. On MPS it is float32, because other dtypes give black pixels."""
    return torch.float32 if device.type == "mps" else dtype
