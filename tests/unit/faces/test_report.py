"""The report, the contact sheet, and the command that prints them."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from latentsync.cli.main import main
from latentsync.faces import report
from latentsync.faces.alignment import affine_matrices, crop, template
from latentsync.faces.detection import FaceDetector
from latentsync.faces.face_track import FaceTrack, TrackSettings, build_face_track
from latentsync.faces.identities import Identities, Identity, reference_appearance, select, sort_identities
from latentsync.faces.occlusion import OcclusionMasks
from latentsync.output.video_writer import VideoWriter
from tests.support.heads import SIDE_PX, actor, blanked, found, staged
from tests.support.image_clip import Clip, black

COUNT = 30


@pytest.fixture(scope="module")
def pair(shared: Path) -> Clip:
    """demo1 on the left, hidden from frame 8 to 19; demo2 on the right."""
    left, right = actor(shared, "demo1", np.zeros(COUNT)), actor(shared, "demo2", np.full(COUNT, 2.0 * SIDE_PX))
    return blanked(staged(left, right), 8, 20)


@pytest.fixture(scope="module")
def identities(pair: Clip, detector: FaceDetector) -> Identities:
    return found(pair, detector)


@pytest.fixture(scope="module")
def video(pair: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "pair.mp4"
    with VideoWriter(path, rate=Fraction(25), height=SIDE_PX, width=3 * SIDE_PX) as writer:
        for frame in pair.frames:
            writer.write(frame)
    return path


def test_report_lists_people_and_frames_left_alone(identities: Identities) -> None:
    identities = sort_identities(identities, "leftmost")
    chosen = select(identities, "leftmost")
    said = report.report_text(identities, followed(identities, chosen)).splitlines()
    assert said[0] == "clip: 30 frames, 1 shot(s), 2 face(s)"
    assert said[1].startswith("  1 (chosen): 18 of 30 frames (0-7, 20-29), ")
    assert said[2].startswith("  2: 30 of 30 frames (0-29), ")
    assert said[3:] == ["  face in 18 of 30 frames", "  unchanged: 8-19"]


def test_report_names_frames_beyond_yaw_limit(identities: Identities) -> None:
    identities = sort_identities(identities, "rightmost")
    chosen = select(identities, "rightmost")
    yaws = np.where(np.isin(chosen.frames, [10, 11]), 80.0, 0.0)
    turned = replace(chosen, yaws=yaws)
    assert report.report_text(identities, followed(identities, turned)).splitlines()[3:] == [
        "  face in 30 of 30 frames",
        "  filled: 10-11",
    ]
    assert report.report_json(identities, followed(identities, turned, max_gap_frames=1))["track"]["unchanged"] == [
        [10, 12]
    ]


def followed(identities: Identities, identity: Identity, **settings: Any) -> report.Selection:
    how = TrackSettings(**settings)
    return report.Selection(identities, identity, build_face_track(identities, identity, how), how)


def test_report_without_people(detector: FaceDetector) -> None:
    assert report.report_text(found(black(3), detector)) == "clip: 3 frames, 1 shot(s), 0 face(s)"


def test_report_contact_sheet_numbers_everybody(identities: Identities) -> None:
    crops = list(report.identity_crops(identities, 256))
    assert [numbered.shape for numbered in crops] == [(256, 256, 3)] * 2
    decoded = cv2.imdecode(np.frombuffer(report.contact_sheet(crops), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], np.hstack(crops))
    bare = [numberless(identities, identity) for identity in identities.members]
    for numbered, plain in zip(crops, bare, strict=True):
        changed = (numbered != plain).any(axis=-1)
        assert changed[:60, :60].any(), "a number in the upper left corner"
        assert not changed[60:].any()
        assert not changed[:, 60:].any()
    pixels = [int((numbered != plain).any(axis=-1).sum()) for numbered, plain in zip(crops, bare, strict=True)]
    assert pixels[0] < pixels[1], "a 1 is thinner than a 2"


def test_report_frames_the_chosen_crop_only(identities: Identities) -> None:
    identities = sort_identities(identities, "rightmost")
    chosen = identities.members[1]
    plain = report.identity_crops(identities, 96)
    framed = report.identity_crops(identities, 96, chosen)
    changed = [(one != other).any(axis=-1) for one, other in zip(plain, framed, strict=True)]
    assert [bool(pixels.any()) for pixels in changed] == [False, True]
    edge = np.ones((96, 96), bool)
    edge[4:-4, 4:-4] = False
    edge[:40, :40] = False  # the number
    assert changed[1][edge].mean() > 0.9
    assert not changed[1][40:-4, 4:-4].any()


def numberless(identities: Identities, identity: Identity) -> np.ndarray:
    """The crop of `report.identity_crops` without its number."""
    best = report.best_frame(identity)
    matrix = affine_matrices(identity.points[identity.frames == best], 256, (), "zero-lag")[0]
    return crop(next(identities.source.read([best])), matrix, 256).transpose(1, 2, 0)


def test_reference_picture_selects_person(identities: Identities, pair: Clip, detector: FaceDetector) -> None:
    for left, number in ((0, 1), (2 * SIDE_PX, 2)):
        picture = pair.frames[25][:, left : left + SIDE_PX]
        bright = (picture * 0.7).astype(np.uint8)
        for given in (picture, bright, cv2.resize(picture, None, fx=1.7, fy=1.7).astype(np.float32) / 255):
            chosen = select(identities, reference=reference_appearance(given, detector))
            assert np.array_equal(chosen.frames, identities.members[number - 1].frames)


def command(video: Path, shared: Path, tmp_path: Path, *more: object) -> int:
    folder = tmp_path / "models" / "latentsync"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "face_landmarker.task").exists():
        (folder / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    return main(["faces", str(video), "--models", str(folder.parent), *map(str, more)])


def test_faces_command_prints_json_and_writes_crops(
    shared: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = tmp_path / "crops ü.png"
    assert command(video, shared, tmp_path, "--json", "-o", png, "--face", "leftmost") == 0
    told = json.loads(capsys.readouterr().out)
    assert [face["frames"] for face in told["faces"]] == [18, 30]
    assert told["chosen"] == 1
    assert told["track"] == {"frames": 18, "filled": [], "unchanged": [[8, 20]]}
    assert cv2.imdecode(np.frombuffer(png.read_bytes(), np.uint8), cv2.IMREAD_COLOR).shape == (256, 512, 3)


@pytest.mark.parametrize(("order", "frames"), [("leftmost", [18, 30]), ("rightmost", [30, 18])])
def test_faces_command_numbers_are_what_face_index_takes(
    shared: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], order: str, frames: list[int]
) -> None:
    for number in (1, 2):
        assert command(video, shared, tmp_path, "--json", "--face", order, "--face-index", number) == 0
        told = json.loads(capsys.readouterr().out)
        assert [(face["number"], face["frames"]) for face in told["faces"]] == list(enumerate(frames, start=1))
        assert told["chosen"] == number
        assert told["track"]["frames"] == frames[number - 1]


def test_faces_command_max_gap_fills_gaps(
    shared: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(video, shared, tmp_path, "--face", "leftmost", "--max-gap", 12) == 0
    assert "  filled: 8-19" in capsys.readouterr().out.splitlines()


def test_faces_command_refuses_bad_arguments(
    shared: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(video, shared, tmp_path, "-o", "crops.jpg") == 2
    assert command(video, shared, tmp_path, "--face-index", 3) == 1
    assert '"face_index" is 3, but' in capsys.readouterr().err
    assert command(video, shared, tmp_path, "--min-confidence", 0) == 2


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (480, 640)])
def test_tracker_frames_without_face_give_nobody(detector: FaceDetector, size: tuple[int, int]) -> None:
    for count in (1, 3):
        assert found(Clip(np.zeros((count, *size, 3), np.uint8)), detector).members == ()


def test_tracker_accepts_one_frame(shared: Path, detector: FaceDetector) -> None:
    identities = found(staged(actor(shared, "demo1", np.zeros(1)), width=SIDE_PX), detector)
    assert build_face_track(identities, select(identities)).present.tolist() == [True]


def test_report_names_frames_with_an_object() -> None:
    source = black(6, 300, 300)
    points = np.repeat((template(256) + np.array([40, 10]))[None], 6, axis=0)
    masks, mask = OcclusionMasks(6), np.zeros((280, 210), np.float32)
    boxes = np.repeat(np.array([[60.0, 30, 230, 260]]), 6, axis=0)
    everywhere, half = np.arange(6), np.full(6, 0.5)
    identity = Identity(1, everywhere, points, boxes, half, np.zeros(6), half, np.zeros((1, 12, 16, 3), np.float32))
    identities = Identities(source, (identity,), ())
    track = FaceTrack(source, points, smoothing="zero-lag")
    selection = report.Selection(identities, identity, track, TrackSettings())
    assert "object" not in report.report_text(identities, selection)
    assert "occluded" not in report.report_json(identities, selection)["track"]
    assert report.occlusion_crop(track, 64) is None
    empty = selection._replace(track=replace(track, occlusion=masks))
    assert report.report_text(identities, empty).endswith("object in front of the mouth: none")
    assert report.occlusion_crop(empty.track, 64) is None
    mask[160:200, :105] = 1
    masks.add(2, mask / 2)
    masks.add(3, mask)
    assert report.report_text(identities, empty).endswith("object in front of the mouth: 2-3")
    assert report.report_json(identities, empty)["track"]["occluded"] == [[2, 4]]
    crop = report.occlusion_crop(empty.track, 64)
    assert crop is not None
    assert crop.shape == (64, 64, 3)
    assert crop[41, 16].tolist() == [153, 0, 120], "the tint at 60 %, on black"
    assert crop[41, 48].tolist() == [0, 0, 0]
