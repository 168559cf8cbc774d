"""`r1ray chat`: talk to a model."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from r1ray.cli._model import ModelArgument, TemplateOption
from r1ray.cli._output import console


def register(app: typer.Typer) -> None:
    """Add `chat`."""
    app.command()(chat)


def chat(
    model: ModelArgument,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy. DeepSeek recommends 0.6 for R1.")
    ] = 0.6,
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Nucleus sampling: the probability mass to sample from.")
    ] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 2048,
    max_length: Annotated[int, typer.Option(min=2, help="Longest conversation, in tokens.")] = 4096,
    template: TemplateOption = None,
) -> None:
    """Chat with a model in the terminal. Its thinking is dim.

    Ctrl-C ends a response, Ctrl-D the conversation.
    """
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # torch reads it when it is imported; it would warn about NUMA binding

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
