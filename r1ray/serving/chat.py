"""`r1ray chat`: talk to a model in the terminal. The thinking is dim as it comes, the answer plain.

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
"""Where a model without a chat format begins the user's next turn by itself, it is stopped."""


class TextEngine(Protocol):
    """What a chat needs of an engine; tests script one."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def max_length(self) -> int:
        """Longest sequence, prompt and response together, in tokens."""
        ...

    def stream(self, token_ids: Sequence[int], sampling: Sampling, stop: Sequence[str]) -> Generator[str, None, None]:
        """The response in bits, as they are made. Closing the generator ends the generation."""
        ...


class Chat:
    """One conversation.

    A model with a chat format hears the whole conversation, without the thinking, as R1's own template has it; when it
    gets too long, the oldest turns are left out. Any other model hears each line alone: it was not trained on more.
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
        """`template` is a value of `data.template`; None: the tokenizer's own, or `plain` where it has none.

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
        """Answer one line; `stopped` is asked after every bit whether to leave it at that."""
        message = {"role": "user", "content": line}
        text, token_ids = self._fitting(message)
        room = self._engine.max_length - len(token_ids)
        if room < 1:
            self._console.print(f"{len(token_ids)} tokens are more than the {self._engine.max_length} that fit.")
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
    """Turn after turn until the end of the input (Ctrl-D). Ctrl-C ends a response, not the program."""
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:  # at the prompt: begin the line anew
            console.print()
            continue
        if line:
            with interruptible() as stopped:
                chat.turn(line, stopped)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only makes the yielded function true: an engine must not be torn out of a step.

    The second one raises KeyboardInterrupt as ever.
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
