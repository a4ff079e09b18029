"""Lip-sync through a ComfyUI of your own: upload, queue, watch the progress, fetch the result.

The fields are those of the official cog (video, audio, guidance_scale, inference_steps, seed) and of other hosted
routes (loop_mode), so that a caller of those can switch to a machine of their own. It needs aiohttp, which ComfyUI's
Python has.

Usage: python client.py VIDEO AUDIO -o OUT.mp4 [--guidance_scale 1.5] [--inference_steps 20] [--seed 7]
       python client.py --request FIELDS.json -o OUT.mp4
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import aiohttp

GRAPH = Path(__file__).with_name("lipsync_video.json")
LENGTHS = {"pingpong": "audio (ping-pong)", "loop": "audio (loop)"}
"""loop_mode -> the Sampler's `length_mode`: what happens where the audio is longer than the video."""

ALIASES = {"video_url": "video", "audio_url": "audio"}
SEEDS = 2**32
SUFFIXES = (".mp4", ".webm", ".mov", ".mkv")
BLOCK_BYTES = 1 << 20
POLL_SECONDS = 0.2
FAILED = ("execution_error", "execution_interrupted")
UNLIMITED = aiohttp.ClientTimeout(total=None, sock_connect=30)

Graph = dict[str, dict[str, Any]]


class ApiError(Exception):
    """ComfyUI refused the request, or the run failed."""


@dataclass(frozen=True)
class Request:
    """What hosted LatentSync routes take."""

    video: str
    """A file here, or an http(s) address."""
    audio: str
    """As `video`."""
    guidance_scale: float = 1.5
    inference_steps: int | None = None
    """None keeps the steps of the graph."""
    seed: int = 0
    """0 becomes a random seed, as in the official cog."""
    loop_mode: str = "pingpong"
    """pingpong or loop: where the audio is longer than the video."""

    def __post_init__(self) -> None:
        if not self.video or not self.audio:
            raise ApiError("A request needs video and audio. Provide both.")
        if self.loop_mode not in LENGTHS:
            raise ApiError(f'"loop_mode" cannot be {self.loop_mode}. Choose {" or ".join(LENGTHS)}.')
        if self.seed == 0:
            object.__setattr__(self, "seed", random.randrange(1, SEEDS))


class Client:
    """One caller of one ComfyUI.

    server: its address, http://127.0.0.1:8188 for example.
    """

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self.session = session
        self.server = server.rstrip("/")
        self.id = uuid.uuid4().hex

    async def lip_sync(self, request: Request, graph: Graph, into: Path) -> None:
        """Run a request and put the video at `into`; Ctrl-C ends the run on the server too."""
        check(graph)
        video, audio = await self.upload(request.video), await self.upload(request.audio)
        async with self.session.ws_connect(f"{self.server}/ws", params={"clientId": self.id}, max_msg_size=0) as events:
            prompt_id = await self.queue(filled(graph, request, video, audio))
            try:
                async for line in progress(events, prompt_id, graph):
                    print(line, file=sys.stderr, flush=True)
            except asyncio.CancelledError:
                await self.cancel(prompt_id)
                raise
        await self.fetch(await self.result(prompt_id), into)

    async def upload(self, given: str) -> str:
        """Put a file, or what lies at an address, into ComfyUI's input folder: its name there."""
        if not given.startswith(("http://", "https://")):
            path = Path(given)
            if not path.is_file():
                raise ApiError(f"{path} does not exist. Check the path.")
            with path.open("rb") as file:
                return await self._upload(path.name, file)
        async with self.session.get(given) as answer:
            if answer.status != 200:
                raise ApiError(f"{given} cannot be downloaded: the server answers {answer.status} {answer.reason}.")
            return await self._upload(Path(unquote(urlsplit(given).path)).name or "download", answer.content)

    async def _upload(self, name: str, content: BinaryIO | aiohttp.StreamReader) -> str:
        form = aiohttp.FormData()
        form.add_field("image", content, filename=f"{self.id[:8]}_{name}", content_type="application/octet-stream")
        async with self.session.post(f"{self.server}/upload/image", data=form) as answer:
            if answer.status != 200:
                raise ApiError(f"ComfyUI refuses the upload of {name}: {answer.status} {answer.reason}.")
            return (await answer.json())["name"]

    async def queue(self, graph: Graph) -> str:
        """Put a graph into ComfyUI's queue: the id of the prompt."""
        body = {"prompt": graph, "client_id": self.id}
        async with self.session.post(f"{self.server}/prompt", json=body) as answer:
            reply = await answer.json()
        reports = (error for node in reply.get("node_errors", {}).values() for error in node["errors"])
        details = [f"{error['message']}: {error['details']}" for error in reports]
        if "prompt_id" in reply and not details:
            return reply["prompt_id"]
        if "prompt_id" in reply:  # Face Prep, which can run alone, was queued without the rest
            await self.cancel(reply["prompt_id"])
        raise ApiError("; ".join(details) or str(reply.get("error", reply)))

    async def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, and end it if it runs."""
        for path, body in (("queue", {"delete": [prompt_id]}), ("interrupt", {"prompt_id": prompt_id})):
            async with self.session.post(f"{self.server}/{path}", json=body):
                pass

    async def result(self, prompt_id: str) -> dict[str, str]:
        """The video of a finished prompt, as ComfyUI names it: filename, subfolder, type."""
        entry: dict[str, Any] = {}
        while prompt_id not in entry:  # it is filed just after the end is told
            async with self.session.get(f"{self.server}/history/{prompt_id}") as answer:
                entry = await answer.json()
            await asyncio.sleep(POLL_SECONDS)
        files = [file for output in entry[prompt_id]["outputs"].values() for file in output.get("images", [])]
        videos = [file for file in files if file["filename"].endswith(SUFFIXES)]
        if not videos:
            raise ApiError("The run ended without a video. Check the graph.")
        return videos[-1]

    async def fetch(self, file: dict[str, str], into: Path) -> None:
        """Download a file of ComfyUI's; it gets its name when it is whole."""
        part = into.with_name(f"{into.name}.part")
        try:
            async with self.session.get(f"{self.server}/view", params=file) as answer:
                answer.raise_for_status()
                with part.open("wb") as target:
                    async for block in answer.content.iter_chunked(BLOCK_BYTES):
                        target.write(block)
            part.replace(into)
        finally:
            part.unlink(missing_ok=True)


def check(graph: Graph) -> None:
    """Raises ApiError for a graph that has not one place for a video and one for a recording."""
    classes = [node["class_type"] for node in graph.values()]
    for name in ("LoadVideo", "LoadAudio"):
        if classes.count(name) != 1:
            raise ApiError(f"The graph has {classes.count(name)} nodes {name}. Use a graph with one.")


def filled(graph: Graph, request: Request, video: str, audio: str) -> Graph:
    """The graph with a request in it; `video` and `audio` are names in ComfyUI's input folder."""
    sampler = {"seed": request.seed, "cfg": request.guidance_scale, "length_mode": LENGTHS[request.loop_mode]}
    if request.inference_steps is not None:
        sampler["steps"] = request.inference_steps
    values = {"LoadVideo": {"file": video}, "LoadAudio": {"audio": audio}, "LatentSyncSampler": sampler}
    return {
        key: {**node, "inputs": {**node["inputs"], **values.get(node["class_type"], {})}} for key, node in graph.items()
    }


async def progress(events: aiohttp.ClientWebSocketResponse, prompt_id: str, graph: Graph) -> AsyncIterator[str]:
    """What a prompt does, line by line, until it is done."""
    async for message in events:
        if message.type is not aiohttp.WSMsgType.TEXT:
            continue
        event = json.loads(message.data)
        data = event.get("data", {})
        if data.get("prompt_id") != prompt_id:
            continue
        if event["type"] == "execution_success":
            return
        if event["type"] in FAILED:
            raise ApiError(data.get("exception_message", "The run was canceled.").strip())
        if event["type"] == "progress":
            yield f"{graph[data['node']]['class_type']}: {data['value']} of {data['max']}"
    raise ApiError("ComfyUI closed the connection. Look into its log.")


def parsed() -> tuple[argparse.Namespace, Request]:
    parser = argparse.ArgumentParser(description="Lip-sync a video through a ComfyUI with LatentSync Nodes.")
    parser.add_argument("video", nargs="?", help="a file, or an http(s) address")
    parser.add_argument("audio", nargs="?", help="a file, or an http(s) address")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the video goes")
    parser.add_argument("--request", type=Path, help="a JSON file with the fields; those of the command line win")
    parser.add_argument("--guidance_scale", type=float, help="how strictly the lips follow (default: 1.5)")
    parser.add_argument("--inference_steps", type=int, help="denoising steps (default: those of the graph)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same lips; 0 draws one (default: 0)")
    parser.add_argument("--loop_mode", choices=LENGTHS, help="where the audio is longer (default: pingpong)")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="ComfyUI's address (default: %(default)s)")
    parser.add_argument("--graph", type=Path, default=GRAPH, help="another graph in API format")
    arguments = parser.parse_args()
    names = [field.name for field in fields(Request)]
    given = stored(arguments.request, names) if arguments.request else {}
    told = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return arguments, Request(**{"video": "", "audio": "", **given, **told})


def stored(path: Path, names: list[str]) -> dict[str, Any]:
    """The fields of a JSON file, less those that are null; some routes call the first two video_url and audio_url."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ApiError(f"{path} is not JSON: {error}") from error
    if not isinstance(given, dict) or {ALIASES.get(name, name) for name in given} - set(names):
        raise ApiError(f"{path} must be a JSON object. Use only the fields {', '.join(names)}.")
    return {ALIASES.get(name, name): value for name, value in given.items() if value is not None}


async def run(arguments: argparse.Namespace, request: Request) -> None:
    graph: Graph = json.loads(arguments.graph.read_text(encoding="utf-8"))
    async with aiohttp.ClientSession(timeout=UNLIMITED) as session:
        await Client(session, arguments.server).lip_sync(request, graph, arguments.output)
    print(json.dumps({"output": str(arguments.output), "request": asdict(request)}))


def main() -> None:
    try:
        asyncio.run(run(*parsed()))
    except (ApiError, aiohttp.ClientError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("canceled")


if __name__ == "__main__":
    main()
