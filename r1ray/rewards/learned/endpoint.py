"""An OpenAI-compatible endpoint, such as `vllm serve`: one request, one reply, within a deadline. Standard library alone."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from r1ray.errors import ConfigError, InfrastructureError, RequestRefused, VerifierError, VerifierTimeout

MAX_REPLY_BYTES = 1 << 20
FIRST_PAUSE_S = 0.25
"""Before the first repetition; doubled before each further one, as far as the deadline allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model answered. Producer: `Endpoint.complete`."""

    text: str
    whole: bool  # False: cut at `max_tokens`


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Asks the model `model` at `url`; safe to use from several threads."""

    owner: str  # who asks, for messages: "judge"
    url: str  # up to /v1
    model: str
    timeout_s: float  # of one reply, repetitions included
    retries: int  # after a failed connection, an overloaded (429) or a failing (5xx) server
    max_tokens: int  # of the reply
    key_variable: str | None = None  # environment variable that holds the endpoint's key
    spend: Callable[[], None] = lambda: None  # called before each request; may refuse it by raising
    refund: Callable[[], None] = lambda: None  # called after each that met no working endpoint

    def __post_init__(self) -> None:
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(f"{self.owner}: url = {self.url!r} must begin with http:// or https://")

    def check(self) -> None:
        """Whether the key is there. The endpoint itself may come up later. Raises ConfigError."""
        if self.key_variable and not os.environ.get(self.key_variable):
            raise ConfigError(f"{self.owner}: the environment variable {self.key_variable} (key_variable) is not set")

    def complete(self, prompt: str) -> Reply:
        """The reply to one user message, at temperature 0.

        Raises RequestRefused, VerifierError for a reply that is none, VerifierTimeout after `timeout_s`, and
        InfrastructureError, the last of them when `retries` repetitions are used up.
        """
        deadline = time.monotonic() + self.timeout_s
        for attempt in range(self.retries + 1):
            self.spend()
            try:
                return self._once(prompt, deadline)
            except InfrastructureError:
                self.refund()
                pause = FIRST_PAUSE_S * 2**attempt
                if attempt == self.retries or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, prompt: str, deadline: float) -> Reply:
        left_s = max(0.01, deadline - time.monotonic())
        try:
            with urllib.request.urlopen(self._request(prompt), timeout=left_s) as answer:  # noqa: S310 - http(s), see above
                return self._reply(self._read(answer, deadline))
        except urllib.error.HTTPError as e:
            with e:
                told = f"the {self.owner} at {self.url} answered {e.code}: {e.read(300).decode(errors='replace')}"
            if e.code == 429 or e.code >= 500:
                raise InfrastructureError(told) from e
            raise RequestRefused(told, status=e.code) from e
        except (OSError, HTTPException) as e:
            if isinstance(getattr(e, "reason", e), TimeoutError):
                told = f"no verdict of the {self.owner} at {self.url} within {self.timeout_s:g} s"
                raise VerifierTimeout(told) from e
            raise InfrastructureError(f"the {self.owner} at {self.url} cannot be reached: {e}") from e

    def _request(self, prompt: str) -> urllib.request.Request:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0.0,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ.get(self.key_variable, '')}"
        address = self.url.rstrip("/") + "/chat/completions"
        return urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310

    def _read(self, answer: Any, deadline: float) -> bytes:
        """The body, bit by bit: a socket's own time-out begins anew with every byte that drips in."""
        body = b""
        while part := answer.read1(1 << 16):
            body += part
            if len(body) > MAX_REPLY_BYTES:
                raise VerifierError(f"the {self.owner}'s reply is longer than 1 MiB")
            if time.monotonic() > deadline:
                raise TimeoutError
        return body

    def _reply(self, body: bytes) -> Reply:
        try:
            choice = json.loads(body)["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as e:
            raise VerifierError(f"the {self.owner}'s reply is no chat completion: {body[:200]!r}") from e
        if not isinstance(content, str):
            raise VerifierError(f"the {self.owner}'s reply has no text, but {content!r:.80}")
        return Reply(text=content, whole=choice.get("finish_reason") != "length")
