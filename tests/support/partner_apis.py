"""A local stand-in for the paid services of ComfyUI's partner nodes: speech to text, translation, and a voice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRANSCRIPT, TRANSLATED, VOICE = "Hello there.", "Hola.", "voice-1"


@dataclass
class Partner:
    """What the services were sent.

    speech: the sound file that the voice speaks.
    requests: method and path of each request.
    texts: path -> the body of its last request, if it is text.
    """

    speech: bytes
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def answer(self, path: str) -> bytes:
        """The body of the answer to a request."""
        if path.startswith("/proxy/elevenlabs/v1/text-to-speech/"):
            return self.speech
        message = {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": TRANSLATED, "annotations": [], "logprobs": []}],
        }
        answers = {
            "/customers/storage": {"download_url": f"{self.url}/stored", "upload_url": f"{self.url}/stored"},
            "/proxy/elevenlabs/v1/voices/add": {"voice_id": VOICE, "requires_verification": False},
            "/proxy/elevenlabs/v1/speech-to-text": {"language_code": "en", "text": TRANSCRIPT, "words": []},
            "/proxy/openai/v1/responses": {"id": "1", "status": "completed", "output": [message]},
        }
        name = next((name for name in answers if path.startswith(name)), None)
        return b"{}" if name is None else json.dumps(answers[name]).encode()


@contextmanager
def serving(speech: bytes) -> Iterator[Partner]:
    """The services while the block runs."""
    partner = Partner(speech)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            partner.requests.append((self.command, path))
            partner.texts[path] = body.decode("utf-8", "replace")
            answer = partner.answer(path)
            self.send_response(200)
            is_sound = answer is partner.speech
            self.send_header("Content-Type", "audio/mpeg" if is_sound else "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.do_POST()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        partner.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield partner
        finally:
            server.shutdown()
