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
    model: Annotated[Path, typer.Argument(help="Model folder, or a run folder: then its final model.")],
    temperature: Annotated[float, typer.Option(min=0.0, help="0: greedy. R1's own advice is 0.6.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the nucleus.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 2048,
    max_length: Annotated[int, typer.Option(min=2, help="Longest conversation, in tokens.")] = 4096,
    template: Annotated[
        str | None, typer.Option(help="As data.template. Default: the tokenizer's own, else plain.")
    ] = None,
) -> None:
    """Talk to a model: thinking dim, answer plain. Ctrl-C ends a response, Ctrl-D the conversation."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is loaded; it warns of NUMA binding

    from actors.streaming import StreamingEngine
    from r1ray.chat import Chat, converse
    from r1ray.machine import this_machine
    from r1ray.runfolder import RunFolder
    from r1ray.types import Sampling

    folder = RunFolder(model)
    with console.status("loading the model"):
        path = folder.final if folder.run_json.exists() else model
        engine = StreamingEngine(path, this_machine(), max_length=max_length)
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    converse(Chat(engine, console, sampling, template=template), console, lambda: console.input("[bold cyan]> [/]"))
