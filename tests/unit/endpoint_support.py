"""A local OpenAI-compatible endpoint for tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str]
"""Status and content."""


@contextmanager
def endpoint(*answers: Answer | Callable[[str], Answer]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answer requests one after another, the last answer again and again.

    An answer may be a function of the prompt. Yields the URL and the list of requests: their bodies, with `path` and
    `headers` (names in lower case).
    """
    asked: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                asked.append({"path": self.path, "headers": headers, **request})
                answer = answers[min(len(asked), len(answers)) - 1]
            status, content = answer(request["messages"][0]["content"]) if callable(answer) else answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as url:
        yield url, asked


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve HTTP with this handler. Yields the URL, up to /v1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
