"""`r1ray chat`: chat with a model in the terminal. Thinking is printed dim, the answer plain.

line -> messages -> template -> tokens -> engine.stream -> Splitter -> terminal
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from threading import Event
from types import FrameType
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from r1ray.data.templates import CHAT_TEMPLATES, opening_of, render
from r1ray.data.tokenizer import Tokenizer
from r1ray.types import Message, Sampling
from r1ray.util.formatting import printable
from r1ray.util.responses import Piece, Splitter

STYLES = {"thinking": "dim", "answer": "", "plain": ""}

TURN_TITLE = "User:"
"""Stop string for a model without a chat format, which may otherwise write the user's next turn itself."""


class TextEngine(Protocol):
    """The engine interface that a chat uses."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the model."""
        ...

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt and response together, in tokens."""
        ...

    def stream(self, token_ids: Sequence[int], sampling: Sampling, stop: Sequence[str]) -> Generator[str, None, None]:
        """Yield the response in pieces. Closing the generator ends the generation."""
        ...


class Chat:
    """One conversation.

    A model with a chat format gets the whole conversation without the thinking, as in R1's own template; if it is too
    long, the oldest turns are left out. Any other model gets each line alone, because it was not trained on
    conversations.
    """

    def __init__(
        self,
        engine: TextEngine,
        console: Console,
        sampling: Sampling,
        *,
        template: str | None = None,
        template_args: Mapping[str, Any] | None = None,
    ) -> None:
        """`template` is a value of `data.template`; None: the tokenizer's own, or `plain` if it has none.

        Raises ConfigError for an unknown template.
        """
        has_format = engine.tokenizer.chat_template is not None
        self._engine = engine
        self._console = console
        self._sampling = sampling
        self._template = template or ("tokenizer" if has_format else "plain")
        self._template_args = template_args
        self._history: list[Message] = []
        self._prompt([{"role": "user", "content": "?"}])

    def turn(self, line: str, stopped: Callable[[], bool] = lambda: False) -> None:
        """Answer one line; generation ends early if `stopped()`, called after each piece, returns True."""
        message = {"role": "user", "content": line}
        text, token_ids = self._fitting(message)
        room = self._engine.max_length - len(token_ids)
        if room < 1:
            self._console.print(
                f"The prompt has {len(token_ids)} tokens; expected fewer than {self._engine.max_length}."
            )
            return
        sampling = replace(self._sampling, max_new_tokens=min(self._sampling.max_new_tokens, room))
        stop = () if self._template in CHAT_TEMPLATES else (TURN_TITLE,)
        said: list[Piece] = []
        splitter = Splitter(thinking=bool(opening_of(text)))
        with closing(self._engine.stream(token_ids, sampling, stop)) as bits:
            for bit in bits:
                said += self._show(splitter.feed(bit))
                if stopped():
                    break
        said += self._show(splitter.end())
        self._console.print()
        if self._template in CHAT_TEMPLATES:
            answer = "".join(part for kind, part in said if kind != "thinking").strip()
            self._history += [message, {"role": "assistant", "content": answer}]

    def _fitting(self, message: Message) -> tuple[str, list[int]]:
        while True:
            text, token_ids = self._prompt([*self._history, message])
            if len(token_ids) < self._engine.max_length or not self._history:
                return text, token_ids
            del self._history[:2]

    def _prompt(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        text = render(self._template, messages, self._engine.tokenizer, args=self._template_args)
        special = self._template not in CHAT_TEMPLATES
        return text, self._engine.tokenizer.encode(text, add_special_tokens=special)

    def _show(self, parts: list[Piece]) -> list[Piece]:
        for kind, text in parts:
            self._console.print(Text(printable(text), style=STYLES[kind]), end="", soft_wrap=True)
        return parts


def converse(chat: Chat, console: Console, read_line: Callable[[], str]) -> None:
    """Read lines and answer them until the end of the input (Ctrl-D). Ctrl-C ends a response, not the program."""
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:  # at the prompt: start a new line
            console.print()
            continue
        if line:
            with interruptible() as stopped:
                chat.turn(line, stopped)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Context in which the first Ctrl-C only makes the yielded function return True, so that no engine step is
    interrupted.

    The second one raises KeyboardInterrupt as usual.
    """
    asked = Event()

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
