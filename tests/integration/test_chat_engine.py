"""The streaming engine with real vLLM, in a process of its own: the environment must be set before vLLM is imported."""

import subprocess
import sys

import pytest

from tests.integration.models import random_model, write_model

SCRIPT = """
import sys
from pathlib import Path
from r1ray.serving.engine import StreamingEngine
from r1ray.util.machine import this_machine
from r1ray.types import Sampling

engine = StreamingEngine(Path(sys.argv[1]), this_machine(), max_length=4096)
assert engine.max_length == 256, engine.max_length
greedy = Sampling(temperature=0.0, max_new_tokens=20)
ids = engine.tokenizer.encode("User: bus 7 A+5\\nAssistant:")
first = list(engine.stream(ids, greedy, ()))
assert len(first) == 20, first

stopped = engine.stream(ids, greedy, ())
assert [next(stopped), next(stopped)] == first[:2]
stopped.close()
assert list(engine.stream(ids, greedy, ())) == first
print("ok")
"""


@pytest.mark.integration
def test_text_comes_in_bits_and_an_abandoned_response_leaves_the_engine_whole(tmp_path):
    write_model(random_model(seed=0, eos_token_id=None), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip().endswith("ok"), done.stdout + done.stderr
