"""Whether Ray's dashboard and client server demand the token, on small servers that answer as Ray's do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest

from r1ray.preflight import doors
from r1ray.preflight.doors import refuses_strangers


@contextmanager
def dashboard(status: int) -> Iterator[int]:
    """The port of a server that answers every request with `status`."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def client_server(code: grpc.StatusCode | None) -> Iterator[int]:
    """The port of a gRPC server that ends every call with `code`; None: it answers."""

    def answer(request: bytes, context: Any) -> bytes:
        if code is not None:
            context.abort(code, "as the test wants")
        return b""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer)

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None).wait()


@pytest.mark.parametrize(("status", "refuses"), [(401, True), (403, True), (200, False), (404, False)])
def test_the_dashboard_refuses_by_its_status(monkeypatch: pytest.MonkeyPatch, status: int, refuses: bool) -> None:
    with dashboard(status) as port:
        monkeypatch.setattr(doors, "DASHBOARD", port)
        assert refuses_strangers("0.0.0.0", port) is refuses


@pytest.mark.parametrize(
    ("code", "refuses"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.NOT_FOUND, False),
        (None, False),
        (grpc.StatusCode.UNIMPLEMENTED, None),
    ],
)
def test_the_client_server_refuses_by_its_code(code: grpc.StatusCode | None, refuses: bool | None) -> None:
    with client_server(code) as port:
        assert refuses_strangers("127.0.0.1", port) is refuses


def test_a_door_behind_which_nothing_answers_is_not_called_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with dashboard(200) as port:
        pass
    assert refuses_strangers("127.0.0.1", port) is None
    monkeypatch.setattr(doors, "DASHBOARD", port)
    assert refuses_strangers("127.0.0.1", port) is None
