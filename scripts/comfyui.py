"""Start a real ComfyUI without a browser, and use it through HTTP and its websocket."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
import websocket

from scripts.comfyui_events import ComfyUIError, Event, EventLog, binary_event

REPOSITORY = Path(__file__).resolve().parent.parent
PACK = "latentsync-nodes"
BASE_FOLDERS = ("models", "input", "output", "temp", "custom_nodes", "user")
LAST_EVENTS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
LOG_TAIL_LINES = 40
START_SECONDS = 240.0  # until a new server answers
POLL_SECONDS = 0.1
PORTS_PER_WORKER = 500
FIRST_PORT = 20_000
EMPTY_PROMPT = {
    "1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}
"""A graph that computes nothing."""
TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Graph = dict[str, dict[str, Any]]
"""API format: node id -> {"class_type", "inputs"}."""


class InvalidPromptError(ComfyUIError):
    """POST /prompt refused the graph. `node_errors` is the answer of ComfyUI, by node id."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.error: dict[str, Any] = answer.get("error") or {}
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        details = [
            f"node {node_id} ({report.get('class_type')}): {error.get('message')}: {error.get('details')}"
            for node_id, report in self.node_errors.items()
            for error in report.get("errors", [])
        ]
        message = self.error.get("message") or "ComfyUI refused a part of the graph."
        super().__init__("\n".join([f"{message} {self.error.get('details') or ''}".strip(), *details]))


class ExecutionFailedError(ComfyUIError):
    """A node failed. `data` is ComfyUI's execution_error event."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = dict(data)
        self.node_type: str = data.get("node_type", "")
        self.exception_type: str = data.get("exception_type", "")
        self.exception_message: str = str(data.get("exception_message", "")).strip()
        self.traceback = "".join(data.get("traceback", []))
        super().__init__(f"{self.node_type}: {self.exception_type}: {self.exception_message}")


class ExecutionInterruptedError(ComfyUIError):
    """The prompt was stopped by POST /interrupt."""


class ComfyUI:
    """A running ComfyUI with this pack, as a context manager.

    base: the base directory (models, input, output, temp, custom_nodes, user). Missing folders are created.
    packs: folders to link into custom_nodes under these names. No other packs are loaded. The default is this pack.
        An empty mapping loads all packs in custom_nodes.
    program: folder of ComfyUI. The default is the one of `make venv`.
    python: the interpreter for ComfyUI. The default is this one.
    port: the default is a free one.
    arguments: more options of main.py.
    """

    def __init__(
        self,
        base: Path,
        *,
        packs: Mapping[str, Path] | None = None,
        program: Path | None = None,
        python: Path | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.base = base.resolve()
        self.packs = dict(packs) if packs is not None else {PACK: REPOSITORY}
        self.program = program or installed_program()
        self.python = python or Path(sys.executable)
        self.port = port or free_port()
        self.arguments = list(arguments)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client_id = uuid.uuid4().hex
        self.events = EventLog()
        self._http = requests.Session()
        self._http.trust_env = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: websocket.WebSocket | None = None

    def __enter__(self) -> ComfyUI:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises ComfyUIError with the end of its log if it ends, is too slow, or cannot import a pack.
        """
        prepare_base(self.base, self.packs)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        try:
            self._await_answer()
            self._check_imports()
            self._listen()
        except BaseException:
            self.stop()
            raise

    def command(self) -> list[str]:
        """The command line that starts this server."""
        options = ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        options += ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch"]
        if self.packs:
            options += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *self.packs]
        if not has_accelerator():
            options.append("--cpu")
        return [str(self.python), str(self.program / "main.py"), *options, *self.arguments]

    def stop(self) -> None:
        """End the server. Does nothing if it is not running."""
        if self._socket is not None:
            self._socket.shutdown()
            self._socket = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self.events.close()

    def wait_closed(self) -> None:
        """Wait until the server ends by itself or the user presses Ctrl-C."""
        if self._process is not None:
            self._process.wait()

    @property
    def pid(self) -> int:
        """The server's process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def input(self) -> Path:
        return self.base / "input"

    @property
    def output(self) -> Path:
        return self.base / "output"

    @property
    def temp(self) -> Path:
        return self.base / "temp"

    @property
    def models(self) -> Path:
        return self.base / "models"

    @property
    def log_path(self) -> Path:
        return self.base / "comfyui.log"

    @property
    def log(self) -> str:
        """The output of the server so far."""
        return TERMINAL_COLOUR.sub("", self.log_path.read_text(encoding="utf-8", errors="replace"))

    def object_info(self, node_class: str | None = None) -> dict[str, Any]:
        """The schemas of all nodes, or of one, by class name."""
        answer = self.get("/object_info" if node_class is None else f"/object_info/{node_class}")
        return answer.json()

    def queue(self, graph: Graph, **extra_data: object) -> str:
        """Queue a graph in API format, and return its prompt id. Raises InvalidPromptError if a part is refused.

        extra_data: as the page sends it, such as preview_method.
        """
        prompt = {"prompt": graph, "client_id": self.client_id, "extra_data": extra_data}
        content = json.dumps(prompt)  # NaN, too, which requests would not send
        answer = self._http.post(
            f"{self.url}/prompt", content, headers={"Content-Type": "application/json"}, timeout=60
        )
        if answer.status_code == requests.codes.bad_request:
            raise InvalidPromptError(answer.json())
        answer.raise_for_status()
        told = answer.json()
        if told["node_errors"]:  # ComfyUI runs the other output nodes
            self._http.post(f"{self.url}/queue", json={"delete": [told["prompt_id"]]}, timeout=60).raise_for_status()
            raise InvalidPromptError(told)
        return told["prompt_id"]

    def wait(self, prompt_id: str, timeout_seconds: float = 300.0) -> dict[str, Any]:
        """Wait for a prompt's end and return its history entry.

        Raises ExecutionFailedError with the node's message, ExecutionInterruptedError, or ComfyUIError if it takes
        too long or the server ends.
        """
        try:
            last = self.events.wait_for(
                lambda event: event.prompt_id == prompt_id and event.type in LAST_EVENTS, timeout_seconds
            )
        except ComfyUIError as error:
            raise ComfyUIError(f"prompt {prompt_id}: {error}\n{self._log_tail()}") from error
        entry = self._history(prompt_id)
        if last.type == "execution_error":
            raise ExecutionFailedError(last.data)
        if last.type == "execution_interrupted":
            raise ExecutionInterruptedError(f"prompt {prompt_id} was interrupted in node {last.data.get('node_id')}.")
        return entry

    def run(self, graph: Graph, timeout_seconds: float = 300.0) -> dict[str, Any]:
        """Queue a graph and wait for its history entry."""
        return self.wait(self.queue(graph), timeout_seconds)

    def interrupt(self) -> None:
        """Interrupt the running prompt."""
        self._http.post(f"{self.url}/interrupt", timeout=60).raise_for_status()

    def free(self) -> None:
        """Unload models and clear cached results before the next prompt.

        ComfyUI can overlook the request if it comes just after the end of a prompt. ComfyUI then frees the memory after
        the next prompt. Therefore, this function also runs a prompt that computes nothing.
        """
        self._http.post(
            f"{self.url}/free", json={"unload_models": True, "free_memory": True}, timeout=60
        ).raise_for_status()
        self.run(EMPTY_PROMPT)

    def outputs(self, entry: Mapping[str, Any]) -> list[Path]:
        """The files that a finished prompt's nodes reported, in the order of the nodes."""
        folders = {"output": self.output, "temp": self.temp, "input": self.input}
        return [
            folders[item["type"]] / item.get("subfolder", "") / item["filename"]
            for node_output in entry["outputs"].values()
            for items in node_output.values()
            if isinstance(items, list)
            for item in items
            if isinstance(item, dict) and "filename" in item
        ]

    def get(self, path: str, **query: str) -> requests.Response:
        """GET a path of the server. Raises requests.HTTPError unless it succeeds."""
        answer = self._http.get(f"{self.url}{path}", params=query, timeout=60)
        answer.raise_for_status()
        return answer

    def _history(self, prompt_id: str) -> dict[str, Any]:
        """The history entry, which the server writes just after its last message."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            entries = self.get(f"/history/{prompt_id}").json()
            if prompt_id in entries:
                return entries[prompt_id]
            time.sleep(POLL_SECONDS)
        raise ComfyUIError(f"prompt {prompt_id} ended, but has no history entry.")

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise ComfyUIError(f"ComfyUI ended before it answered.\n{self._log_tail()}")
            try:
                self.get("/system_stats")
                return
            except (requests.ConnectionError, requests.HTTPError):
                time.sleep(POLL_SECONDS)
        raise ComfyUIError(f"ComfyUI did not answer in {START_SECONDS:g} s.\n{self._log_tail()}")

    def _check_imports(self) -> None:
        failed = [line for line in self.log.splitlines() if "IMPORT FAILED" in line]
        if failed:
            raise ComfyUIError("ComfyUI could not import: " + "; ".join(failed) + f"\n{self._log_tail()}")

    def _listen(self) -> None:
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{self.port}/ws?clientId={self.client_id}", timeout=60, http_no_proxy=["127.0.0.1"]
        )
        self._socket.settimeout(None)
        threading.Thread(target=self._record, args=(self._socket,), daemon=True).start()

    def _record(self, connection: websocket.WebSocket) -> None:
        try:
            while True:
                message = connection.recv()
                if isinstance(message, str) and message:
                    content = json.loads(message)
                    self.events.append(Event(content["type"], content.get("data") or {}, time.monotonic()))
                elif isinstance(message, bytes) and message:
                    self.events.append(binary_event(message))
                elif not message:
                    break
        except (OSError, websocket.WebSocketException):
            pass
        finally:
            self.events.close()

    def _log_tail(self) -> str:
        return f"The end of {self.log_path}:\n" + "\n".join(self.log.splitlines()[-LOG_TAIL_LINES:])


def installed_program() -> Path:
    """The folder of ComfyUI: $COMFYUI_PATH, or else $COMFYUI_VERSION or the newest version in .comfyui."""
    if named := os.environ.get("COMFYUI_PATH"):
        return Path(named).resolve()
    found = sorted((REPOSITORY / ".comfyui").glob(f"ComfyUI-{os.environ.get('COMFYUI_VERSION', '*')}"), key=version_of)
    if not found:
        raise ComfyUIError("There is no ComfyUI in .comfyui. Run `make venv` to download it.")
    return found[-1]


def version_of(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.removeprefix("ComfyUI-").split(".") if part.isdigit()]


def prepare_base(base: Path, packs: Mapping[str, Path]) -> None:
    """Create the folders of the base directory. Link each pack into custom_nodes, or copy it."""
    for name in BASE_FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    for name, folder in packs.items():
        place_pack(base / "custom_nodes" / name, folder.resolve())


def place_pack(link: Path, folder: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    try:
        link.symlink_to(folder, target_is_directory=True)
    except OSError:
        # Windows allows links for administrators and developers only.
        shutil.copytree(folder, link, ignore=shutil.ignore_patterns(".venv", ".comfyui", ".compat", ".git"))


def environment() -> dict[str, str]:
    """The environment of this process, without variables that put other modules before those of ComfyUI."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return inherited | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def has_accelerator() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()


def free_port() -> int:
    """A free port. Each test worker has its own range, below the ports that Linux gives to clients.

    A server binds the port later, and another program must not get the port before this.
    """
    first = FIRST_PORT + PORTS_PER_WORKER * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(first, first + PORTS_PER_WORKER))
    random.shuffle(ports)
    for port in ports:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise ComfyUIError(f"All ports from {first} on are in use.")
