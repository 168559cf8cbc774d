"""A model in the reward worker: loaded once, shared by many threads, run in batches."""

from __future__ import annotations

import abc
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from r1ray.errors import ConfigError, DeadlineExceeded, VerifierTimeout

if TYPE_CHECKING:
    from r1ray.data.tokenizer import Tokenizer

Row = TypeVar("Row")
Dtype = Literal["float32", "bfloat16"]

MAX_BATCH = 64
"""A scorer has at most this many requests under way at once."""

_LOADING = threading.Lock()
"""One model is loaded at a time: transformers' lazy imports fail if two threads start them at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Parameters of each reward with a model of its own."""

    path: str  # model folder in the format of Hugging Face
    batch_size: int = 8
    max_length: int = 8192  # tokens of prompt and scored text
    device: str = "auto"  # auto: a GPU if the reward worker has one
    dtype: Dtype = "float32"
    timeout_s: float = 600.0  # for one response; the first waits for the model to be loaded

    def check_limits(self, reward: str) -> None:
        """Raise ConfigError for limits that no request of `reward` could meet."""
        if not 1 <= self.batch_size <= MAX_BATCH or self.max_length < 1 or self.timeout_s <= 0:
            raise ConfigError(
                f"{reward}: expected batch_size from 1 to {MAX_BATCH}, max_length >= 1 and timeout_s > 0, got "
                f"batch_size = {self.batch_size}, max_length = {self.max_length}, timeout_s = {self.timeout_s:g}"
            )


class ModelServer(abc.ABC, Generic[Row]):
    """One model without a thread of its own: a thread that finds it idle runs a batch of the waiting requests."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # held by the thread that uses the model
        self._waiting: deque[tuple[Row, Future[float]]] = deque()
        self._held: tuple[Tokenizer, Any] | None = None

    @abc.abstractmethod
    def load(self, settings: ModelSettings) -> tuple[Tokenizer, Any]:
        """Load tokenizer and model. Raises ConfigError for a folder without such a model."""

    @abc.abstractmethod
    def scores(self, model: Any, rows: list[Row]) -> list[float]:
        """One score for each row, in one forward pass."""

    def tokenizer(self, settings: ModelSettings) -> Tokenizer:
        """The model's tokenizer. The first call loads both, and raises DeadlineExceeded after `settings.timeout_s`."""
        return self._load(settings)[0]

    def score(self, settings: ModelSettings, row: Row) -> float:
        """The model's score of a row.

        Raises VerifierTimeout after `settings.timeout_s`, or DeadlineExceeded if the model was not
        loaded by then.
        """
        deadline = time.monotonic() + settings.timeout_s
        _, model = self._load(settings)
        answer: Future[float] = Future()
        self._waiting.append((row, answer))
        while not answer.done():
            if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
                answer.cancel()
                raise VerifierTimeout(f"the model {settings.path} gave no score within {settings.timeout_s:g} s")
            try:
                if not answer.done():
                    self._run_batch(model, settings.batch_size)
            finally:
                self._turn.release()
        return answer.result()

    def _run_batch(self, model: Any, size: int) -> None:
        batch = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        batch = [(row, answer) for row, answer in batch if answer.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            scores = self.scores(model, [row for row, _ in batch])
        except BaseException as e:  # every waiting thread must get the failure
            for _, answer in batch:
                answer.set_exception(e)
            return
        for (_, answer), score in zip(batch, scores, strict=True):
            answer.set_result(score)

    def _load(self, settings: ModelSettings) -> tuple[Tokenizer, Any]:
        if self._held is not None:  # without waiting for another model to load
            return self._held
        if not _LOADING.acquire(timeout=settings.timeout_s):
            raise DeadlineExceeded(f"the model {settings.path} was not loaded within {settings.timeout_s:g} s")
        try:
            if self._held is None:
                self._held = self.load(settings)
            return self._held
        finally:
            _LOADING.release()


def load_pretrained(cls: Any, settings: ModelSettings, kind: str) -> tuple[Tokenizer, Any]:
    """Load the tokenizer, and the model through transformers' class `cls`, ready to score.

    Raises ConfigError for a folder that holds no such model; `kind` names it in the message.
    """
    import torch
    from transformers.utils.logging import disable_progress_bar

    from r1ray.data.tokenizer import load_tokenizer

    disable_progress_bar()  # it would write control characters into log files
    tokenizer = load_tokenizer(settings.path)
    try:
        model = cls.from_pretrained(settings.path, dtype=getattr(torch, settings.dtype), trust_remote_code=False)
    except (OSError, ValueError) as e:
        raise ConfigError(f"the {kind} {settings.path} cannot be loaded: {e}") from e
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return tokenizer, model.to(device).eval()
