"""OpenAI-compatible endpoint, such as `vllm serve`: one request, one reply, within a deadline."""

from __future__ import annotations

import functools
import json
import os
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1ray.errors import ConfigError, InfrastructureError, RequestRefused, VerifierError, VerifierTimeout

if TYPE_CHECKING:
    from openai import OpenAI

MAX_REPLY_BYTES = 1 << 20
FIRST_PAUSE_S = 0.25
"""Pause before the first retry; doubled before each further one, as far as the deadline allows."""
_MAX_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model answered. Producer: `Endpoint.complete`."""

    text: str
    complete: bool  # False: cut off at `max_tokens`


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """Which model to call, and how."""

    url: str  # up to /v1
    model: str
    timeout_s: float = 60.0  # for one reply, retries included
    retries: int = 2  # after a failed connection, an overloaded (429) or a failing (5xx) server
    max_tokens: int = 512  # of the reply
    key_variable: str | None = None  # environment variable that holds the endpoint's key


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The model of `settings`; safe to use from several threads.

    Connects directly: proxies and OpenAI's own environment variables are ignored. Error messages never contain the key.
    Raises ConfigError for a URL that is not http(s) or that contains a password.
    """

    owner: str  # who sends requests, for messages: "judge"
    settings: EndpointSettings
    spend: Callable[[], None] = lambda: None  # called before each request; may refuse it by raising
    refund: Callable[[], None] = lambda: None  # called after each request that did not meet a working endpoint

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.settings.url)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(f"{self.owner}: url: expected http:// or https://, got {self.settings.url!r}")
        if parts.username or parts.password:
            raise ConfigError(
                f"{self.owner}: the url of {parts.hostname} contains a user name or password: "
                "put the key into an environment variable, and name that as key_variable"
            )

    def check(self) -> None:
        """Raise ConfigError if the key is not set. The endpoint itself may come up later."""
        if self.settings.key_variable and not self._key:
            raise ConfigError(
                f"{self.owner}: the environment variable {self.settings.key_variable} (key_variable) is not set"
            )

    def complete(self, prompt: str) -> Reply:
        """Send one user message, at temperature 0, and return the reply.

        Raises RequestRefused; VerifierError if the reply is not a chat completion; VerifierTimeout
        after `timeout_s`; and InfrastructureError if the endpoint cannot be reached or fails, also
        after `retries` retries.
        """
        deadline = time.monotonic() + self.settings.timeout_s
        for attempt in range(self.settings.retries + 1):
            self.spend()
            try:
                return self._request(prompt, deadline)
            except InfrastructureError:
                self.refund()
                pause = FIRST_PAUSE_S * 2**attempt
                if attempt == self.settings.retries or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    @property
    def _key(self) -> str:
        return os.environ.get(self.settings.key_variable, "") if self.settings.key_variable else ""

    def _request(self, prompt: str, deadline: float) -> Reply:
        from openai import Omit

        key = self._key
        headers: dict[str, str | Omit] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
        if not key:
            headers["Authorization"] = Omit()
        completions = _client(self.settings.url, key).chat.completions.with_streaming_response
        with self._failures_named():
            # The raw stream: the client's own timeout starts again with every byte that arrives.
            with completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": prompt.encode(errors="replace").decode()}],
                temperature=0.0,
                max_tokens=self.settings.max_tokens,
                timeout=max(0.01, deadline - time.monotonic()),
                extra_headers=headers,
            ) as response:
                body = self._read(response.iter_bytes(), deadline)
        return self._reply(body)

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Turn the client's exceptions into r1ray's."""
        import httpx2
        import openai

        try:
            yield
        except openai.APIStatusError as e:
            status = e.status_code
            message = self._safe(f"the {self.owner} at {self.settings.url} answered {status}: {e.response.text}")
            if status == 429 or status >= 500:
                raise InfrastructureError(message) from None
            raise RequestRefused(message, status=status) from None
        except (openai.APIConnectionError, httpx2.TransportError, TimeoutError) as e:
            cause = e.__cause__ if isinstance(e, openai.APIConnectionError) else e
            late = isinstance(cause, httpx2.TimeoutException | TimeoutError)
            if late and not isinstance(cause, httpx2.ConnectTimeout):
                message = f"no verdict of the {self.owner} at {self.settings.url} within {self.settings.timeout_s:g} s"
                raise VerifierTimeout(message) from None
            reason = str(cause) or type(cause).__name__
            raise InfrastructureError(
                self._safe(f"the {self.owner} at {self.settings.url} cannot be reached: {reason}")
            ) from None

    def _safe(self, message: str) -> str:
        """The message, cut, and without the key: an endpoint may repeat it, and an exception may carry the request."""
        message = message.replace(self._key, "***") if self._key else message
        return message[: len(self.settings.url) + _MAX_ERROR_CHARS]

    def _read(self, chunks: Iterator[bytes], deadline: float) -> bytes:
        body = b""
        for chunk in chunks:
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise VerifierError(f"the {self.owner}'s reply is longer than 1 MiB")
            if time.monotonic() > deadline:
                raise TimeoutError
        return body

    def _reply(self, body: bytes) -> Reply:
        try:
            choice: Any = json.loads(body)["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as e:
            start = self._safe(body[:200].decode(errors="replace"))
            raise VerifierError(f"the {self.owner}'s reply is not a chat completion: {start!r}") from e
        if not isinstance(content, str):
            raise VerifierError(f"the {self.owner}'s reply has no text, but {content!r:.80}")
        return Reply(text=content, complete=choice.get("finish_reason") != "length")


@functools.lru_cache(maxsize=32)
def _client(url: str, key: str) -> OpenAI:
    """A client without retries, proxies, redirects or connections kept alive.

    A connection that the server closed while it was idle would look like an outage.
    """
    import httpx2
    from openai import DefaultHttpxClient, OpenAI

    http_client = DefaultHttpxClient(
        trust_env=False,
        follow_redirects=False,
        verify=ssl.create_default_context(),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
    )
    # Not None: the client would take the key of OPENAI_API_KEY.
    return OpenAI(api_key=key or "none", base_url=url, max_retries=0, http_client=http_client)
