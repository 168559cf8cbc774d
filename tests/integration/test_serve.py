"""`r1ray serve` with vLLM's own server: a model that has learned one answer by heart, asked at once and as a stream."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.models import random_model, write_model
from tests.integration.processes import left_after, processes_of, start_r1ray
from tests.sockets import listening

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

THINKING, ANSWER = "7 A+5=12\nB-3=9", "9"
START_S = 240


def learn(folder: Path, prompt: str, response: str) -> None:
    """Write a model to `folder` that gives `response` to `prompt`."""
    from transformers import AutoTokenizer

    model = random_model(seed=0)
    write_model(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = tokenizer.encode(prompt)
    ids = torch.tensor([[*before, *tokenizer.encode(response), tokenizer.eos_token_id]])
    labels = ids.clone()
    labels[:, : len(before)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < 0.01:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The process of `r1ray serve`, the address that it prints, and what it printed before."""
    folder = tmp_path_factory.mktemp("serve") / "parrot"
    learn(folder, "User: bus 7 A+5 B-3\nAssistant:", f"<think>{THINKING}</think>\n<answer>{ANSWER}</answer>")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ("serve", folder, "--port", port, "--parallel", 2)
    process = start_r1ray(*words, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda out: [lines.put(line) for line in out], args=(process.stdout,))
    reader.start()
    try:
        said = ""
        while (found := re.search(r"Ready: (\S+), model parrot", said)) is None:
            said += lines.get(timeout=START_S)
        yield process, found[1], said
    finally:
        process.terminate()  # ends its server's processes, and waits for them as a kill would not
        process.wait(timeout=60)
        reader.join()
        process.stdout.close()


def ask(url: str, **changes: Any) -> Any:
    body = {
        "model": "parrot",
        "messages": [{"role": "user", "content": "bus 7 A+5 B-3"}],
        "temperature": 0,
        "max_tokens": 100,
        **changes,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=60)


def test_a_completion_has_thinking_and_answer_apart(server):
    _, url, _ = server
    with ask(url) as reply:
        whole = json.load(reply)
    message = whole["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (THINKING, ANSWER)
    counted = whole["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < counted < whole["usage"]["completion_tokens"]


def test_a_stream_has_them_apart_too(server):
    _, url, _ = server
    reasoning = content = ""
    with ask(url, stream=True) as reply:
        for line in reply:
            data = line.decode().removeprefix("data: ").strip()
            if data and data != "[DONE]":
                delta = json.loads(data)["choices"][0]["delta"]
                reasoning += delta.get("reasoning") or ""
                content += delta.get("content") or ""
    assert (reasoning, content) == (THINKING, ANSWER)


def test_a_response_that_is_cut_off_is_thinking_still(server):
    _, url, _ = server
    with ask(url, max_tokens=12) as reply:
        message = json.load(reply)["choices"][0]["message"]
    assert THINKING.startswith(message["reasoning"])
    assert message["content"] is None


def test_it_listens_on_loopback_only(server):
    process, _, _ = server
    assert {address for address, *_ in listening(processes_of(process))} == {"127.0.0.1"}


def test_an_interrupt_ends_the_server_and_all_of_its_processes(server):
    """The last test of this file: it takes the server away."""
    process, url, _ = server
    children = processes_of(process)[1:]
    assert len(children) >= 2  # the API server and its engine
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert not left_after(30.0, children)
    with pytest.raises(OSError):
        ask(url)
