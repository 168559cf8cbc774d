"""The first signal ends a run gracefully, the second at once, however close together they arrive."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from r1ray.control.stop import RunInterruptedError, Stop
from r1ray.launch.signals import stop_on_signals
from r1ray.run.view import make_view
from tests.unit.fake_run import NoView

BOTH = (signal.SIGINT, signal.SIGTERM)
ALL = (*BOTH, signal.SIGHUP)


class Lines(NoView):
    """A view that keeps its lines; `on_line` runs while one is printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.on_line = lambda: None

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.on_line()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("first", "second"), [BOTH, BOTH[::-1], (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGINT)]
)
def test_the_second_signal_ends_at_once_whichever_it_is(first: signal.Signals, second: signal.Signals) -> None:
    stop, view = Stop(60.0), Lines()
    stop_on_signals(stop, view)
    signal.raise_signal(first)
    assert (stop.requested, stop.reason, len(view.lines)) == (True, first.name, 1)
    with pytest.raises(RunInterruptedError, match=first.name):
        stop.check(unsaved=False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(second)
    assert len(view.lines) == 1


def test_two_signals_are_two_if_the_second_arrives_while_the_first_is_handled() -> None:
    """Before, the handler of the first was still installed then, and both counted as one."""
    moments: list[float] = []

    def clock() -> float:
        moments.append(0.0)
        if len(moments) == 1:
            signal.raise_signal(signal.SIGTERM)
        return 0.0

    stop = Stop(60.0, clock=clock)
    stop_on_signals(stop, Lines())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stop.reason == "SIGINT"


def test_two_signals_are_two_if_the_second_arrives_while_the_line_is_printed() -> None:
    stop, view = Stop(60.0), Lines()
    view.on_line = lambda: signal.raise_signal(signal.SIGTERM) if len(view.lines) == 1 else None
    stop_on_signals(stop, view)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_during_a_write_of_the_view_stops_the_run_like_any_other() -> None:
    """Before, the error of the handler's own line left the interrupted write and ended the run without a checkpoint."""

    class Terminal(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if not stop.requested:
                signal.raise_signal(signal.SIGINT)
            return len(data)

    stop = Stop(60.0)
    view = make_view(Console(file=io.TextIOWrapper(io.BufferedWriter(Terminal()))), total_steps=1)
    stop_on_signals(stop, view)
    view.line("step 1")
    assert stop.reason == "SIGINT"


def test_handlers_that_are_installed_again_keep_the_count() -> None:
    stop = Stop(60.0)
    stop_on_signals(stop, Lines())
    signal.raise_signal(signal.SIGINT)
    stop_on_signals(stop, Lines())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_second_signal_whose_exception_python_drops_ends_the_run_at_the_next_check() -> None:
    class Ref:
        """Stands for an object whose end runs Python code, such as Ray's references."""

    stop = Stop(60.0)
    stop_on_signals(stop, Lines())
    signal.raise_signal(signal.SIGINT)
    ref = Ref()
    callback = weakref.ref(ref, lambda _: signal.raise_signal(signal.SIGTERM))
    del ref  # "Exception ignored in": KeyboardInterrupt does not leave the callback
    assert callback() is None
    with pytest.raises(KeyboardInterrupt):
        stop.check(unsaved=True)


def test_the_end_of_the_terminal_stops_a_run_unless_it_is_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_on_signals(Stop(60.0), Lines())
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_run_whose_terminal_is_gone_can_still_print() -> None:
    """A terminal that nobody holds any more raises an error at the next line, which would end the run."""
    main, terminal = os.openpty()
    program = (
        "import os, signal, sys\n"
        "from r1ray.control.stop import Stop\n"
        "from r1ray.launch.signals import stop_on_signals\n"
        "from r1ray.run.view import make_view\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "stop = Stop(60.0)\n"
        "with make_view(total_steps=1) as view:\n"
        "    stop_on_signals(stop, view)\n"
        "    print('ready', flush=True)\n"
        "    signal.sigwait({signal.SIGUSR1})\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    view.line('saved')\n"
        "sys.exit(7 if stop.reason == 'SIGHUP' else 1)\n"
    )
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # the process inherits it
    try:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=terminal, stderr=terminal)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.close(terminal)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(main, 4096)
    os.close(main)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60.0) == 7
