"""`r1ray serve`: an OpenAI-compatible server that separates thinking and answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from r1ray.cli._model import ModelArgument, TemplateOption
from r1ray.cli._output import console

SHUTDOWN_S = 30.0


def register(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command()(serve)


def serve(
    model: ModelArgument,
    extra: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="More options for `vllm serve`, after --.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. The default accepts connections from this machine only.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Model name for clients. Default: the name of the folder.")] = None,
    max_length: Annotated[int, typer.Option(min=2, help="Longest conversation, answer included, in tokens.")] = 32768,
    parallel: Annotated[int, typer.Option(min=1, help="Number of responses generated at the same time.")] = 16,
    template: TemplateOption = None,
    start_s: Annotated[float, typer.Option(min=1.0, help="Time limit for the start, in seconds.")] = 1200.0,
) -> None:
    """Serve a model through vLLM's OpenAI-compatible API. Ctrl-C ends the server.

    Chat completions return the thinking in `reasoning` and the answer in `content`. If the environment variable
    VLLM_API_KEY is set, clients must send that key.
    """
    from r1ray.run.policy import find_policy
    from r1ray.serving.server import Address

    address = Address(host=host, port=port)
    address.require_key(os.environ.get("VLLM_API_KEY"))
    address.check()
    policy = find_policy(model).ready()
    _run(
        policy.model,
        template or policy.template,
        {} if template else policy.template_args,
        start_s,
        name=name or policy.stage or model.resolve().name,
        address=address,
        max_length=max_length,
        parallel=parallel,
        extra=extra or (),
    )
    console.print("The server has ended.")


def _run(model: Path, template: str | None, args: dict[str, Any], start_s: float, **served: Any) -> None:
    """Start the server and wait for its end. `served`: the other fields of `r1ray.serving.command.Served`."""
    import tempfile

    from r1ray.data.chat_template import chat_template, opens_thinking
    from r1ray.data.tokenizer import load_tokenizer
    from r1ray.models.folder import read_shape
    from r1ray.serving.command import Served, server_command
    from r1ray.serving.server import serve as run_server
    from r1ray.util.machine import this_machine

    read_shape(model)
    tokenizer = load_tokenizer(str(model))
    template = template or ("plain" if tokenizer.chat_template is None else "tokenizer")
    opened = opens_thinking(template, tokenizer, args)
    with tempfile.TemporaryDirectory(prefix="r1ray-serve-") as scratch:
        jinja, log = Path(scratch) / "chat_template.jinja", Path(scratch) / "server.log"
        jinja.write_text(chat_template(template, tokenizer, args), encoding="utf-8")
        whole = Served(model=model, chat_template=jinja, thinking_opened=opened, **served)
        command, environment = server_command(whole, this_machine())
        console.print(f"Starting the server of {model} (template {template}); its log: {log}", soft_wrap=True)

        def ready() -> None:
            console.print(f"Ready: {whole.address.url}/v1, model {whole.name}. Ctrl-C ends the server.", soft_wrap=True)

        run_server(command, environment, whole.address, log, start_s=start_s, shutdown_s=SHUTDOWN_S, on_ready=ready)
