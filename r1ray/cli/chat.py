"""`r1ray chat`: talk to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli._output import console


def register(app: typer.Typer) -> None:
    """Add `chat`."""
    app.command()(chat)


def chat(
    model: Annotated[Path, typer.Argument(help="Model folder, run folder or recipe folder: then its final model.")],
    temperature: Annotated[float, typer.Option(min=0.0, help="0: greedy. R1's own advice is 0.6.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the nucleus.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 2048,
    max_length: Annotated[int, typer.Option(min=2, help="Longest conversation, in tokens.")] = 4096,
    template: Annotated[
        str | None,
        typer.Option(help="As data.template. Default: that of the training, else the tokenizer's, else plain."),
    ] = None,
) -> None:
    """Talk to a model: thinking dim, answer plain. Ctrl-C ends a response, Ctrl-D the conversation."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is loaded; it warns of NUMA binding

    from r1ray.run.policy import find_policy
    from r1ray.serving.chat import Chat, converse
    from r1ray.serving.engine import StreamingEngine
    from r1ray.types import Sampling
    from r1ray.util.machine import this_machine

    policy = find_policy(model).ready()
    with console.status("loading the model"):
        engine = StreamingEngine(policy.model, this_machine(), max_length=max_length)
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    args = {} if template else policy.template_args
    chat = Chat(engine, console, sampling, template=template or policy.template, template_args=args)
    converse(chat, console, lambda: console.input("[bold cyan]> [/]"))
