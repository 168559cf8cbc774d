"""The command line. Each module beside this one adds its commands with a function `register(app)`; `_` marks helpers.

Modules import at the top only what `--help` needs; ray, torch and the like come inside the commands. This module
imports typer inside a function too, so that a Ctrl-C while it is loaded ends by name.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from r1ray.errors import ConfigError, DiskFull, InfrastructureError, R1RayError
from r1ray.util.files import is_disk_full
from r1ray.util.imports import add_import_folders

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
"""Exit code after SIGINT, SIGTERM or SIGHUP: 128 + SIGINT, as shells count."""


def build_app() -> typer.Typer:
    """The application with the commands of every module of this package, in the order of their names."""
    import typer

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


@functools.cache
def command() -> Callable[[], object]:
    """`build_app` as a click command. Typer would build it anew at every call."""
    import typer

    return typer.main.get_command(build_app())


def main() -> None:
    """Run a command. A named failure is one red message on standard error and its exit code, not a traceback.

    SIGTERM and SIGHUP unwind like Ctrl-C, so that nothing half-written is left; a command may have handlers of its own.
    """
    try:
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is not signal.SIG_IGN:  # as nohup sets it
                signal.signal(each, signal.default_int_handler)
        add_import_folders([Path.cwd()])
        command()()
    except KeyboardInterrupt:  # outside the command, which turns it into an exit code
        _fail("Interrupted", _REPEAT, INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _fail("Interrupted", _REPEAT, INTERRUPTED)
        raise
    except (R1RayError, OSError) as error:
        if os.environ.get("R1RAY_TRACEBACK") == "1":
            raise
        named = error if isinstance(error, R1RayError) else name_os_error(error)
        _fail(type(named).__name__, str(named), named.exit_code)


_REPEAT = "repeat the command; a run that has begun continues with `--resume RUN`"


def name_os_error(error: OSError) -> R1RayError:
    """The named failure for an error of the operating system, with what to do about it."""
    where = f"{error.filename}: " if error.filename else ""
    if is_disk_full(error):
        return DiskFull(f"{where}no space left on the device: free space, then repeat the command")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConfigError(
            f"{where}{error.strerror}: give a folder that this user may write to (run.dir or --out), or change its "
            "permissions"
        )
    return InfrastructureError(f"{where}{error.strerror or error}: fix that, then repeat the command")


def _fail(name: str, message: str, code: int) -> None:
    """Print a failure in one line and end with `code`."""
    from rich.console import Console
    from rich.markup import escape

    with contextlib.suppress(OSError):  # the terminal is gone, and with it the reader
        Console(stderr=True, highlight=False).print(f"[bold red]{name}:[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)
