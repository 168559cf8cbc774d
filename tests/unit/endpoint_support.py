"""An OpenAI-compatible endpoint of our own, on the loopback."""

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
    """Answers requests one after another, the last answer again and again; keeps what it was asked.

    An answer may be a function of the prompt.
    """
    asked: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked.append({"path": self.path, **request})
                answer = answers[min(len(asked), len(answers)) - 1]
            status, content = answer(request["messages"][0]["content"]) if callable(answer) else answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
