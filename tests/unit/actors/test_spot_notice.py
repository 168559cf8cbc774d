"""The notice of a spot instance's end, against a local server in the place of EC2's metadata service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from actors.spot_notice import FIRST_TRIES, POLL_S, SpotNotice, SpotWatch
from r1ray.errors import ConfigError, InfrastructureError

NOON = 1_796_040_000.0  # 2026-11-30T12:00:00Z
NOTICE = json.dumps({"action": "terminate", "time": "2026-11-30T12:02:00Z"})


class Metadata(HTTPServer):
    """IMDSv2 of one instance."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens: list[str] = []
        self.valid = True
        self.answers: list[tuple[int, str]] = []  # of the looks, in order; the last one repeats
        self.looks = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        assert self.path == "/latest/api/token"
        assert 1 <= int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
        self.server.tokens.append(f"token-{len(self.server.tokens)}")
        self._answer(200, self.server.tokens[-1])

    def do_GET(self) -> None:
        assert self.path == "/latest/meta-data/spot/instance-action"
        if not self.server.valid or self.headers["X-aws-ec2-metadata-token"] != self.server.tokens[-1]:
            self._answer(401, "")
            return
        self.server.looks += 1
        self._answer(*(self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]))

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def notice_of(metadata: Metadata) -> SpotNotice:
    return SpotNotice(metadata.address, now=lambda: NOON)


def test_an_instance_without_a_notice_has_no_end_and_takes_one_token_for_all_looks(metadata: Metadata) -> None:
    metadata.answers = [(404, "not found")]
    notice = notice_of(metadata)
    assert [notice.seconds_left() for _ in range(3)] == [None] * 3
    assert metadata.tokens == ["token-0"]


def test_a_notice_gives_the_seconds_that_are_left(metadata: Metadata) -> None:
    metadata.answers = [(200, NOTICE)]
    assert notice_of(metadata).seconds_left() == 120.0
    assert SpotNotice(metadata.address, now=lambda: NOON + 500.0).seconds_left() == 0.0


def test_a_token_that_has_ended_is_replaced(metadata: Metadata) -> None:
    metadata.answers = [(404, "")]
    notice = notice_of(metadata)
    notice.seconds_left()
    metadata.tokens.append("another")  # the first one is refused from now on
    assert notice.seconds_left() is None
    assert len(metadata.tokens) == 3


def test_a_service_that_refuses_its_own_tokens_is_named(metadata: Metadata) -> None:
    metadata.answers, metadata.valid = [(404, "")], False
    with pytest.raises(InfrastructureError, match="refuses a token"):
        notice_of(metadata).seconds_left()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((500, "oops"), "answered 500"),
        ((200, "<html>"), "expected a notice with a time, got '<html>'"),
        ((200, '{"action": "stop"}'), "expected a notice"),
        ((200, '{"time": 7}'), "expected a notice"),
    ],
)
def test_any_other_answer_is_named(metadata: Metadata, answer: tuple[int, str], message: str) -> None:
    metadata.answers = [answer]
    with pytest.raises(InfrastructureError, match=message):
        notice_of(metadata).seconds_left()


def test_the_watch_gives_the_notice_once_and_ends(metadata: Metadata) -> None:
    metadata.answers = [(404, ""), (404, ""), (500, ""), (500, ""), (404, ""), (200, NOTICE)]
    given, log, waits = threading.Event(), [], []
    calls = []

    def on_notice() -> None:
        calls.append(1)
        given.set()

    watch = SpotWatch(notice_of(metadata), on_notice, wait=waits.append, log=log.append)
    watch.start()
    assert given.wait(10.0)
    assert 100.0 < watch.stats()["host_ends_s"] <= 120.0
    assert calls == [1]
    assert waits == [POLL_S] * 4
    assert sum("cannot be read" in line for line in log) == 1, "a service that stays silent is named once"
    assert "takes this host back in 120 s" in log[-1]


def test_a_worker_that_starts_under_a_notice_learns_of_it_at_once(metadata: Metadata) -> None:
    metadata.answers = [(200, NOTICE)]
    calls: list[int] = []
    watch = SpotWatch(notice_of(metadata), lambda: calls.append(1), wait=lambda s: None, log=lambda t: None)
    watch.start()
    assert calls == [1]


def test_without_a_notice_there_is_no_gauge(metadata: Metadata) -> None:
    assert SpotWatch(notice_of(metadata), lambda: None).stats() == {}


def test_a_host_outside_of_ec2_is_refused_by_name() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        address = f"http://127.0.0.1:{server.server_port}"  # of nobody, once it is closed
    waits: list[float] = []
    watch = SpotWatch(SpotNotice(address), lambda: None, wait=waits.append)
    with pytest.raises(ConfigError, match=r"rollout.spot_notice is aws, but this host has no usable EC2 metadata"):
        watch.start()
    assert len(waits) == FIRST_TRIES - 1
