"""The command line. Each module beside this one adds its commands with a function `register(app)`; `_` marks helpers.

Modules import at the top only what `--help` needs; ray, torch and the like come inside the commands.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from r1ray.errors import R1RayError
from r1ray.util.imports import add_import_folders


def build_app() -> typer.Typer:
    """The application with the commands of every module of this package, in the order of their names."""
    app = typer.Typer(
        name="r1ray",
        help="Reinforcement learning of reasoning models on Ray, vLLM and DeepSpeed.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if not name.startswith("_"):
            importlib.import_module(f"{__name__}.{name}").register(app)
    return app


def main() -> None:
    """Run a command. A named failure is one red message on standard error and its exit code, not a traceback.

    SIGTERM unwinds like Ctrl-C, so that nothing half-written is left, with exit code 130; a command may have handlers of its own.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    add_import_folders([Path.cwd()])
    try:
        build_app()()
    except R1RayError as error:
        if os.environ.get("R1RAY_TRACEBACK") == "1":
            raise
        told = f"[bold red]{type(error).__name__}:[/] {escape(str(error))}"
        Console(stderr=True, highlight=False).print(told, soft_wrap=True)
        sys.exit(error.exit_code)
