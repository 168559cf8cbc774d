"""The command line as a user meets it: help at once, one red message for a named failure, exit codes."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from r1ray.cli import INTERRUPTED, build_app, main
from r1ray.errors import ConfigError, InfrastructureError, IntegrityError, R1RayError
from r1ray.run.folder import RunFolder

HEAVY = ("ray", "torch", "vllm", "deepspeed", "transformers", "datasets", "sympy")

HELP = f"""
import sys
from typer.testing import CliRunner
from r1ray.cli import build_app
app = build_app()
for command in [[], *([name] for name in sys.argv[1:])]:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert "Usage" in result.output, command
print(sorted(set({HEAVY}) & set(sys.modules)))
"""


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build_app(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


COMMANDS = sorted(c.name or c.callback.__name__ for c in build_app().registered_commands if c.callback is not None)


def test_help_of_every_command_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_help_takes_little_more_than_the_library_that_prints_it() -> None:
    """Half a second in all where the library takes an eighth; a slow machine takes longer for both."""

    def cpu_seconds(*arguments: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    library = min(cpu_seconds("-c", "import typer.rich_utils") for _ in range(3))
    assert min(cpu_seconds("-m", "r1ray", "--help") for _ in range(3)) < 4 * library


def test_the_commands_are_there() -> None:
    assert {"train", "status", "scale", "verify", "report", "inspect", "chat", "doctor", "tiny"} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("x [y]"), 2), (InfrastructureError("x [y]"), 1), (IntegrityError("x [y]"), 3)]
)
def test_a_named_failure_is_one_message_on_standard_error(
    error: R1RayError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("r1ray.cli.command", lambda: _raising(error))
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert caught.value.code == code
    assert (printed.out, printed.err) == ("", f"{type(error).__name__}: x [y]\n")


def test_the_traceback_comes_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.cli.command", lambda: _raising(ConfigError("x")))
    monkeypatch.setenv("R1RAY_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        main()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_by_name(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("r1ray.cli.command", lambda: lambda: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err.startswith("Interrupted: repeat the command; ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_libraries_are_loaded_ends_by_name(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C in the first half second: typer sends the signal as it is imported."""
    (tmp_path / "typer.py").write_text(f"import signal; signal.raise_signal({int(number)})\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    done = subprocess.run(
        [sys.executable, "-m", "r1ray", "status", "x"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (INTERRUPTED, "")
    assert done.stderr.startswith("Interrupted: ")
    assert "Traceback" not in done.stderr


def test_a_command_under_nohup_ignores_the_end_of_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr("r1ray.cli.command", lambda: lambda: signal.raise_signal(signal.SIGHUP))
    main()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 1, "DiskFull: /a/b: no space left .* free space, then repeat"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "DiskFull: no space left"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), 2, "ConfigError: /a/b: Read-only file system: give a folder"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 2, "ConfigError: /a: Permission denied: give a folder"),
        (OSError(errno.EIO, "Input/output error", "/a"), 1, "InfrastructureError: /a: Input/output error: fix that"),
    ],
)  # fmt: skip
def test_an_error_of_the_operating_system_has_a_name_and_a_remedy(
    error: OSError, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("r1ray.cli.command", lambda: _raising(error))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert re.match(message, capsys.readouterr().err)


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_bad_configuration_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"did you mean run\.steps"):
        run("train", "tiny", "run.stepz=3")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--resume", "run", "--fresh"], "--resume and --fresh"),
        (["sft", "--resume", "run", "--fresh"], "--resume and --fresh"),
        (["sample", "--resume", "run", "--fresh"], "--resume and --fresh"),
        (["sample", "--only-curate", "run", "--fresh"], "--only-curate and --fresh"),
        (["recipe", "recipes/r1", "--only", "a", "--from", "b"], "--only and --from"),
        (["recipe", "recipes/r1", "--resume", "--fresh"], "--resume and --fresh"),
        (["eval", "--resume", "run", "--benchmarks", "bus"], "--resume and --benchmarks"),
        (["eval", "--resume", "run", "-k", "2"], "--resume and -k"),
        (["eval", "--resume", "run", "--temperature", "0.6"], "--resume and --temperature"),
        (["eval", "--resume", "run", "--top-p", "0.95"], "--resume and --top-p"),
        (["eval", "--resume", "run", "--max-new-tokens", "9"], "--resume and --max-new-tokens"),
        (["eval", "--resume", "run", "--limit", "9"], "--resume and --limit"),
        (["eval", "--resume", "run", "--data", "bus=x"], "--resume and --data"),
        (["eval", "--resume", "run", "--against", "x"], "--resume and --against"),
        (["eval", "--resume", "run", "--out", "x"], "--resume and --out"),
    ],
)
def test_options_of_which_one_would_do_nothing_are_refused(
    words: list[str], told: str, folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match=told):
        run(*words)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "words", [["score", "a.jsonl", "--reward", "exact", "--out"], ["train", "tiny", "--plan-file"]]
)
@pytest.mark.parametrize(("file", "told"), [("missing/x", "missing is not a folder"), ("there", "is a folder")])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    words: list[str], file: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"response": "7", "answer": "7"}\n')
    Path("there").mkdir()
    with pytest.raises(ConfigError, match=rf"{words[-1]} {file}.* {told}"):
        run(*words, file)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.jsonl", "there"]


def test_an_evaluation_is_resumed_with_overlays_and_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no evaluation"):
        run("eval", "tiny", "run.seed=1", "--resume", str(tmp_path))


def test_status_of_a_run_as_text_and_as_json(folder: RunFolder) -> None:
    folder.write_status({"state": "running", "step": 2, "steps": 9, "elapsed_s": 61.0, "updated": time.time()})
    code, text = run("status", str(folder.path))
    assert code == 0
    assert "2 of 9, after 1m 01s" in text
    told = json.loads(run("status", str(folder.path), "--json")[1])
    assert told["driver"]["pid"] == os.getpid()
    assert told["state"] == "running"


@pytest.mark.parametrize("wanted", ["rollout", "rollout=0", "rollout=-1", "rollout=x", "learner=2"])
def test_scale_refuses_what_cannot_be(folder: RunFolder, wanted: str) -> None:
    with pytest.raises(ConfigError, match="rollout=N"):
        run("scale", str(folder.path), wanted)


def test_scale_of_a_run_without_a_driver_says_how_to_start_one(folder: RunFolder) -> None:
    folder.release()
    with pytest.raises(ConfigError, match=r"train --resume .* rollout\.workers=3"):
        run("scale", str(folder.path), "rollout=3")


@pytest.mark.parametrize("command", [["status"], ["verify"], ["train", "--resume"]])
def test_a_folder_that_is_no_run_is_refused(command: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        run(*command, str(tmp_path))


def test_an_unknown_option_is_an_error_of_use() -> None:
    assert run("status", "--nonsense")[0] == 2


def test_every_command_says_what_it_does() -> None:
    for command in build_app().registered_commands:
        assert command.callback is not None
        assert (command.callback.__doc__ or "").strip(), command
    assert isinstance(build_app(), typer.Typer)
