"""What PyAV does otherwise from one version to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


def to_read_any_tag() -> dict[str, Any]:
    """What to give to `av.open`: before PyAV 19 a tag that is no UTF-8 is an error unless this says otherwise."""
    return {"metadata_errors": "ignore"} if _major() < 19 else {}


def reformatted(frame: VideoFrame, **wanted: Any) -> VideoFrame:  # noqa: ANN401 - PyAV's
    """`frame.reformat(**wanted)` in one thread.

    From PyAV 17 on several share the work, and swscale, which writes a little beyond the end of a row, then spoils the
    first pixels of the next one's part, if the other was faster.
    """
    if _major() >= 17:
        wanted["threads"] = 1
    return frame.reformat(**wanted)


def _major() -> int:
    import av

    return int(av.__version__.partition(".")[0])
