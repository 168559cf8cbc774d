"""`r1ray score` as a user runs it: code under the sandbox, and a run that is killed half-way."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from tests.unit.reward_support import ROOT

pytestmark = pytest.mark.integration


def command(*arguments):
    return [sys.executable, "-c", "from r1ray.cli import main; main()", "score", *map(str, arguments)]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install -y bubblewrap")
def test_code_with_all_shapes_of_tests(tmp_path):
    prompt = 'def add(a, b):\n    """The sum."""\n'
    human = {"entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3"}
    rows = [
        {"response": "```python\nprint(int(input()) + 1)\n```", "tests": [{"stdin": "1", "stdout": "2"}]},
        {"response": "```python\ndef f(x): return x + 1\n```", "tests": {"asserts": ["assert f(1) == 2"]}},
        {"response": "    return a + b", "tests": human, "prompt": prompt},
        {"response": "```bash\nread x; echo $((x + 1))\n```", "tests": [{"stdin": "1", "stdout": "2"}]},
        {"response": "```python\nimport os; os._exit(0)\n```", "tests": {"asserts": ["assert f(1) == 2"]}},
        {"response": "```python\nprint(1)\n```", "tests": "none"},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        command(source, "--reward", "code", "--out", out), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["reward"] for row in scored] == [1.0, 1.0, 1.0, 1.0, 0.0, None]
    assert scored[4]["notes"]["accuracy"].startswith("test 1 of 1: crash")
    assert scored[5]["error"].startswith("DataError: accuracy: the recorded tests")


def test_killed_run_resumes(tmp_path):
    rows = [{"response": f"\\boxed{{x+{i}}}", "answer": f"{i}+x"} for i in range(800)]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    process = subprocess.Popen(command(source, "--reward", "math", "--out", out), cwd=ROOT, stdout=subprocess.DEVNULL)
    while not out.exists() or out.stat().st_size == 0:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert 0 < len(out.read_text().splitlines()) < 800
    done = subprocess.run(
        command(source, "--reward", "math", "--out", out), cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "were scored by an earlier run" in done.stdout
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["answer"] for row in scored] == [row["answer"] for row in rows]
    assert all(row["reward"] == 1.0 for row in scored)
