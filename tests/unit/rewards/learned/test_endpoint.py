"""The client of OpenAI-compatible endpoints: keys, proxies, deadlines and the names of failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from r1ray.errors import ConfigError, InfrastructureError, RequestRefused, VerifierError, VerifierTimeout
from r1ray.rewards.learned.endpoint import Endpoint, EndpointSettings
from tests.unit.endpoint_support import endpoint, serving

KEY = "sk-sekret-123456"


class Handler(BaseHTTPRequestHandler):
    """Reads the request: closing a connection with unread data resets it."""

    def read(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *args: object) -> None:
        pass


def client(url: str, spend: Callable[[], None] = lambda: None, **fields: Any) -> Endpoint:
    known: dict[str, Any] = {"url": url, "model": "m", "timeout_s": 20.0, "retries": 0, "max_tokens": 5}
    return Endpoint(owner="judge", settings=EndpointSettings(**{**known, **fields}), spend=spend)


def test_key_of_the_named_variable_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "someone-elses")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("R1RAY_TEST_KEY", KEY)
    with endpoint((200, "yes")) as (url, asked):
        assert client(url).complete("a\ud800b").text == "yes"
        assert client(url, key_variable="R1RAY_TEST_KEY").complete("q").text == "yes"
    without, with_key = (request["headers"] for request in asked)
    assert "authorization" not in without
    assert with_key["authorization"] == f"Bearer {KEY}"
    assert "someone-elses" not in str(asked)
    assert asked[0]["messages"] == [{"role": "user", "content": "a?b"}]
    assert (asked[0]["temperature"], asked[0]["max_tokens"], asked[0]["model"]) == (0.0, 5, "m")


def test_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1RAY_TEST_KEY", KEY)
    for status, error in ((401, RequestRefused), (500, InfrastructureError)):
        with (
            endpoint((status, f"wrong key {KEY}")) as (url, _),
            pytest.raises(error, match=rf"{status}: .*\*\*\*") as e,
        ):
            client(url, key_variable="R1RAY_TEST_KEY").complete("q")
        assert KEY not in str(e.value)
    with pytest.raises(ConfigError, match="the url of host contains a user name or password") as e:
        client(f"http://me:{KEY}@host/v1")
    assert KEY not in str(e.value)


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with endpoint((200, "yes")) as (url, _):
        assert client(url).complete("q").text == "yes"


def test_one_request_an_attempt() -> None:
    """The OpenAI client does not retry by itself."""
    spent: list[None] = []
    with endpoint((503, "down")) as (url, asked), pytest.raises(InfrastructureError, match="answered 503"):
        client(url, spend=lambda: spent.append(None)).complete("q")
    assert (len(asked), len(spent)) == (1, 1)


def test_redirects_are_refused() -> None:
    class Redirect(Handler):
        def do_POST(self) -> None:
            self.read()
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:1/v1")
            self.end_headers()

    with serving(Redirect) as url, pytest.raises(RequestRefused, match="answered 307"):
        client(url).complete("q")


def test_reply_that_drips_in_ends_at_the_deadline() -> None:
    over = threading.Event()

    class Dripping(Handler):
        def do_POST(self) -> None:
            self.read()
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.02):
                try:
                    self.wfile.write(b" ")
                except OSError:  # the client hung up
                    return

    with serving(Dripping) as url:
        began = time.monotonic()
        try:
            with pytest.raises(VerifierTimeout, match=r"no verdict of the judge at .* within 0\.5 s"):
                client(url, timeout_s=0.5).complete("q")
        finally:
            over.set()
        assert time.monotonic() - began < 20.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not JSON", "is not a chat completion: 'not JSON'"),
        (b'{"choices": []}', "is not a chat completion"),
        (b'{"choices": [{"message": {"content": null}}]}', "has no text, but None"),
        (b" " * ((1 << 20) + 1), "longer than 1 MiB"),
    ],
)
def test_reply_that_is_no_chat_completion(body: bytes, message: str) -> None:
    class Other(Handler):
        def do_POST(self) -> None:
            self.read()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    with serving(Other) as url, pytest.raises(VerifierError, match=message):
        client(url).complete("q")


def test_endpoint_that_cannot_be_reached() -> None:
    with endpoint((200, "yes")) as (url, _):
        pass
    with pytest.raises(InfrastructureError, match=f"the judge at {url} cannot be reached: .*refused"):
        client(url).complete("q")
