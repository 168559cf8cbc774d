"""`r1ray serve` without vLLM: thinking apart from the answer, templates as Jinja, the child process, its command."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from r1ray.data.chat_template import chat_template, opens_thinking
from r1ray.data.templates import render
from r1ray.errors import ConfigError, DeadlineExceeded, ProcessDied
from r1ray.serving.command import Served, server_command
from r1ray.serving.server import Address, serve
from r1ray.util.machine import Machine
from r1ray.util.responses import ThinkingAndAnswer
from tests.unit.model_folder import write_model


def told(bits: list[str], *, thinking: bool = False) -> tuple[str, str]:
    apart = ThinkingAndAnswer(thinking=thinking)
    parts = [apart.feed(bit) for bit in bits] + [apart.end()]
    return "".join(p[0] for p in parts), "".join(p[1] for p in parts)


@pytest.mark.parametrize(
    ("text", "opened", "wanted"),
    [
        ("<think>\n7 + 5\n\nis 12 </think>\n\n<answer> 12 </answer>", False, ("7 + 5\n\nis 12", "12")),
        ("<think>7+5</think>\nThe answer is **12**.\n", False, ("7+5", "The answer is **12**.")),
        ("7+5</think>12", True, ("7+5", "12")),
        ("still at it", True, ("still at it", "")),
        ("no tags at all", False, ("", "no tags at all")),
        ("<think>a < b and </thin</think>c <d", False, ("a < b and </thin", "c <d")),
        ("", False, ("", "")),
    ],
)
def test_thinking_and_answer_are_the_same_however_the_text_is_cut(text, opened, wanted):
    assert told([text], thinking=opened) == wanted
    assert told(list(text), thinking=opened) == wanted
    for size in (2, 3, 7):
        assert told([text[i : i + size] for i in range(0, len(text), size)], thinking=opened) == wanted


class Words:
    """A tokenizer with the chat template `template`, and a token for the beginning of a text."""

    eos_token_id = 0

    def __init__(self, template: str | None, begin: str = "") -> None:
        self.chat_template = template
        self._begin = begin

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [1] if add_special_tokens and self._begin else []

    def decode(self, token_ids, *, skip_special_tokens: bool = False) -> str:
        return self._begin if list(token_ids) == [1] else ""

    def apply_chat_template(self, conversation, *, tokenize: bool, add_generation_prompt: bool) -> str:
        return jinja(self.chat_template, conversation)


def jinja(template: str, messages) -> str:
    """As transformers and vLLM do it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


CHATML = """{% for m in messages %}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

CHATS = [
    [{"role": "user", "content": "What is 7 + 5"}],
    [{"role": "user", "content": 'Say "{{ x }}".'}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!  "},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "<b> & {% c %}?"},
    ],
]


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("template", ["plain", "r1_zero", "tokenizer", "r1"])
@pytest.mark.parametrize("own", [CHATML, CHATML.replace("assistant\n", "assistant\n<think>")])
def test_a_chat_is_framed_as_in_training(messages, template, own):
    tokenizer = Words(own)
    assert jinja(chat_template(template, tokenizer), messages) == render(template, messages, tokenizer)


def test_the_token_for_the_beginning_stands_in_templates_that_leave_it_to_the_tokenizer():
    tokenizer = Words(CHATML, begin="<s>")
    assert jinja(chat_template("plain", tokenizer), CHATS[0]) == "<s>User: What is 7 + 5\nAssistant:"
    assert jinja(chat_template("tokenizer", tokenizer), CHATS[0]).startswith("<|im_start|>")


def test_what_has_no_chat_form_is_refused():
    with pytest.raises(ConfigError, match="has no chat form"):
        chat_template("none", Words(CHATML))
    with pytest.raises(ConfigError, match="no chat template"):
        chat_template("r1", Words(None))


def test_a_template_that_opens_the_thinking_is_known():
    assert opens_thinking("r1", Words(CHATML))
    assert not opens_thinking("r1_zero", Words(CHATML))
    assert opens_thinking("tokenizer", Words(CHATML.replace("assistant\n", "assistant\n<think>\n")))


CPU = Machine(cores=2, memory_bytes=2**34, shared_memory_bytes=2**30, gpu_memory_bytes=(), cpu_bfloat16=False)
GPU = Machine(cores=8, memory_bytes=2**36, shared_memory_bytes=2**30, gpu_memory_bytes=(2**36,), cpu_bfloat16=True)


def served(folder: Path, **changes) -> Served:
    fields = {
        "model": write_model(folder / "m", dtype="bfloat16"),
        "name": "tiny",
        "address": Address(host="127.0.0.1", port=8000),
        "chat_template": folder / "t.jinja",
        "thinking_opened": False,
        "max_length": 4096,
        "parallel": 4,
    }
    return Served(**{**fields, **changes})


def test_the_command_on_a_cpu_and_on_a_gpu(tmp_path):
    command, environment = server_command(served(tmp_path, extra=["--seed", "3"]), CPU)
    options = dict(itertools.pairwise(command))
    assert options["--max-model-len"] == "256"  # of the model
    assert options["--dtype"] == "float32"  # this CPU has no bfloat16
    # 3 layers x (keys and values) x 128 x 4 bytes x 256 tokens x 4 sequences, and slack
    assert int(options["--kv-cache-memory-bytes"]) == 2 * 3 * 128 * 4 * 256 * 4 + 2**26
    assert options["--reasoning-parser"] == "r1ray"
    assert command[-2:] == ["--seed", "3"]
    assert environment["OMP_NUM_THREADS"] == "2"

    gpu = served(tmp_path / "gpu", thinking_opened=True)
    command, environment = server_command(gpu, GPU)
    options = dict(itertools.pairwise(command))
    assert options["--dtype"] == "bfloat16"
    assert options["--reasoning-parser"] == "r1ray_opened"
    assert "--kv-cache-memory-bytes" not in command
    assert "OMP_NUM_THREADS" not in environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


HEALTHY = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def run(script: str, tmp_path: Path, *, port: int | None = None, start_s: float = 60.0, ready=lambda: None) -> None:
    port = port or free_port()
    command = [sys.executable, "-c", script, str(port)]
    address = Address(host="127.0.0.1", port=port)
    serve(command, {"R1RAY_TEST": "1"}, address, tmp_path / "log", start_s=start_s, shutdown_s=60, on_ready=ready)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_returns(tmp_path, number):
    before = signal.getsignal(number)
    port = free_port()
    run(HEALTHY, tmp_path, port=port, ready=lambda: os.kill(os.getpid(), number))
    Address(host="127.0.0.1", port=port).check()  # the port is free again
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait_for_a_server_that_will_not_end(tmp_path):
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HEALTHY

    pressed: list[float] = []

    def twice() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    run(stubborn, tmp_path, ready=twice)
    assert time.monotonic() - pressed[0] < 30  # of the 60 s that a server has


def test_a_server_that_dies_says_why(tmp_path):
    with pytest.raises(ProcessDied, match=r"exit code 3:\nno \[memory\]"):
        run("import sys; print('no [memory]'); sys.exit(3)", tmp_path)


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
        run("import time; time.sleep(60)", tmp_path, start_s=0.3)


def test_a_taken_port_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            run(HEALTHY, tmp_path, port=port)


def test_addresses():
    assert Address(host="0.0.0.0", port=1).url == "http://127.0.0.1:1"
    assert Address(host="::", port=1).url == "http://[::1]:1"
    assert Address(host="0.0.0.0", port=1).open_to_others
    assert not Address(host="localhost", port=1).open_to_others


@pytest.mark.parametrize("key", [None, ""])
def test_a_server_for_other_machines_needs_a_key(key: str | None) -> None:
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0: everyone .* VLLM_API_KEY"):
        Address(host="0.0.0.0", port=0).require_key(key)
    Address(host="0.0.0.0", port=0).require_key("secret")
    Address(host="localhost", port=0).require_key(key)
