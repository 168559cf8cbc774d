"""The run page: complete, self-contained, and safe for any text of a model."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
import yaml

from r1ray.errors import ConfigError
from r1ray.report import build_report
from r1ray.report.figures import figures
from r1ray.run.metrics import MetricsWriter
from tests.synthetic_run import write_run

VOID = {"meta", "line", "path", "circle", "polygon", "rect", "br"}


class Page(HTMLParser):
    """Elements of a page and its text by element. Fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.elements)


def page_of(run_dir) -> Page:
    return Page(build_report(run_dir).read_text(encoding="utf-8"))


def test_the_page_of_a_finished_run_has_all_sections(tmp_path):
    page = page_of(write_run(tmp_path, killed_at=22))
    titles = page.texts["h2"]
    assert titles == [
        "Responses",
        "Optimisation",
        "Off-policy",
        "Time and throughput",
        "Sampled responses",
        "Figures",
        "Run details",
        "Events",
    ]
    charts = page.texts["h3"]
    for wanted in (
        "Held-out accuracy",
        "Response length",
        "Reward parts",
        "Reflective words",
        "Entropy",
        "Clip fraction",
    ):
        assert wanted in charts
    for wanted in ("Gradient norm", "Staleness", "Engine mismatch", "Throughput", "Idle", "Weight sync", "Step 0"):
        assert wanted in charts
    text = " ".join(page.texts["p"])
    assert "Held-out accuracy on bus went from 15% to 87% in 40 training steps, and from 5% to 99%" in text
    assert "KL to the reference (0 throughout)" in text
    assert "; 1 not finite" in page.texts["span"]  # the gradient norm of step 7
    assert {"worker lost", "reason rollout-0 died"} <= {t for d in page.texts["td"] for t in d.split(", ")}


def test_the_page_loads_nothing_and_allows_only_its_own_script(tmp_path):
    text = build_report(write_run(tmp_path)).read_text()
    assert not re.search(r"https?://|@import|url\(|\bsrc=|\bhref=", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for t, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)><!-- &lt;"


def test_text_of_models_and_logs_is_escaped(tmp_path):
    write_run(tmp_path, steps=3)
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        parts = {HOSTILE: 1.0}
        row = {"step": 2, "prompt_id": "x", "reward": 1.0, "parts": parts, "finish_reason": "stop", "tokens": 3}
        w.transcript(
            {**row, "step": 0, "prompt": HOSTILE, "text": f"<think>{HOSTILE}</think><answer>{HOSTILE}</answer>"}
        )
        w.step(3, {"reward/mean": 1.0, f"reward/part/{HOSTILE}": 0.5, "length/mean": 3.0})
        w.event("failed", message=HOSTILE)
        w.evaluation({"step": 4, "source": HOSTILE, "accuracy": 0.5})
    # Only the first kept responses of a step are shown: make this one the first.
    lines = (tmp_path / "transcripts.jsonl").read_text().splitlines()
    (tmp_path / "transcripts.jsonl").write_text("\n".join([lines[-1], *lines[:-1]]) + "\n")
    page = page_of(tmp_path)
    assert page.count("script") == 2  # the data and the script of the page itself
    assert page.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert HOSTILE in page.texts["div"]
    data = json.loads(page.texts["script"][0])
    assert len(data["panels"]) == page.count("figure")


def test_the_data_of_the_cursor_matches_the_legends(tmp_path):
    page = page_of(write_run(tmp_path))
    data = json.loads(page.texts["script"][0])
    assert data["last"] == 40
    legends = page.texts["b"][: sum(map(len, data["panels"]))]
    assert [series[-1][1] for panel in data["panels"] for series in panel] == legends


@pytest.mark.parametrize(
    ("kwargs", "sentence", "absent"),
    [
        ({"steps": 0, "evaluate_every": 0}, "No training step has finished yet", {"figure", "button"}),
        ({"steps": 1, "evaluate_every": 0}, "1 training step so far; no held-out problems", {"figure"}),
        ({"steps": 2, "evaluate_every": 0}, "2 training steps so far; no held-out problems", set()),
        ({"steps": 3}, "3 training steps so far. Policy 0 solves 15% of bus.", set()),
    ],
)
def test_a_run_that_just_started_has_a_valid_page(tmp_path, kwargs, sentence, absent):
    page = page_of(write_run(tmp_path, **kwargs))
    assert sentence in " ".join(page.texts["p"])
    for tag in absent:
        assert page.count(tag) == 0
    assert "Not shown" not in " ".join(page.texts["p"]) or page.count("figure") > 0


def test_a_run_without_a_living_driver_is_shown_as_killed(tmp_path):
    write_run(tmp_path, steps=3)
    (tmp_path / "status.json").write_text(json.dumps({"state": "running"}))
    assert "killed, 3 of 40 steps" in page_of(tmp_path).texts["span"]


def test_long_responses_are_folded_and_very_long_ones_truncated(tmp_path):
    write_run(tmp_path, steps=1)
    row = {
        "step": 1,
        "prompt_id": "x",
        "prompt": "p",
        "reward": 0.0,
        "parts": {},
        "finish_reason": "length",
        "tokens": 9,
    }
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        w.transcript({**row, "text": "a" * 5000})
        w.transcript({**row, "text": "b" * 50_000})
    page = page_of(tmp_path)
    assert {"all 5,000 characters", "all 50,000 characters"} <= set(page.texts["summary"])
    assert "a" * 5000 in page.texts["details"]
    assert any(t.endswith("[truncated: 36,000 more characters]") for t in page.texts["details"])


def test_the_reflective_words_can_be_chosen(tmp_path):
    write_run(tmp_path, steps=12)
    text = build_report(tmp_path, words=["eureka"]).read_text()
    assert "Reflective words (no kept response contains eureka)" in text


def test_reward_model_scores_have_their_own_chart(tmp_path):
    write_run(tmp_path, steps=3)
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        for step, score in ((3, -7.5), (4, 12.5)):
            w.step(step, {"reward/part/accuracy": step / 10, "reward/part/model/helpful": score, "length/mean": 3.0})
    page = page_of(tmp_path)
    data = json.loads(page.texts["script"][0])
    charts = [a["data-chart"] for t, a in page.elements if t == "figure"]
    titles = [t for t in page.texts["h3"] if not t.startswith("Step")]
    at = titles.index("Reward models")
    assert [series[-1] for series in data["panels"][int(charts[at])]] == [[4.0, "12.5"]]
    assert len(data["panels"][int(charts[titles.index("Reward parts")])]) == 2  # accuracy and format only


def of_command(run_dir, use):
    record = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**record, "use": use}))


def supervised_page(run_dir, use, metrics, evaluation) -> Page:
    """The page of a run of three steps, evaluated before the first and after the last."""
    write_run(run_dir, steps=0, evaluate_every=0)
    of_command(run_dir, use)
    with MetricsWriter(run_dir, tensorboard=False) as w:
        for step in range(3):
            if step in (0, 2):
                w.evaluation({"step": step, **evaluation(step)})
            w.step(step, {**metrics(step), "train/lr": 1e-4 * step})
    return page_of(run_dir)


def test_a_supervised_run_has_its_own_charts(tmp_path):
    page = supervised_page(
        tmp_path,
        "sft",
        lambda step: {"sft/loss": 2.0 - step / 2, "sft/token_accuracy": 0.5 + step / 10},
        lambda step: {"source": "chats", "loss": 2.0 - step / 2, "token_accuracy": 0.5 + step / 10},
    )
    text = " ".join(page.texts["p"])
    assert "Held-out loss on chats went from 2 to 1 nats per token in 3 training steps" in text
    assert "from 50% to 70%" in text
    charts = page.texts["h3"]
    assert {"Loss", "Token accuracy", "Held-out loss", "Held-out token accuracy", "Learning rate"} <= set(charts)
    assert {"Held-out token accuracy", "Held-out loss, nats per token"} <= set(page.texts["dt"])
    assert "Completion tokens trained per second" not in page.texts["th"]
    assert not {"Held-out accuracy", "Reward", "Staleness", "Reflective words"} & set(charts)


def test_a_replay_names_its_recording_and_has_no_rollout_workers(tmp_path):
    write_run(tmp_path, steps=0, evaluate_every=0)
    with (tmp_path / "config.yaml").open("a") as config:
        config.write("replay: {run: /runs/a}\n")
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        w.event("replaying", message="", run="/runs/a", run_id="a-1", first_step=2, steps=6, groups_per_step=4)
        for step in range(6):
            kl = 0.1 * step
            w.step(step, {"learner/step_s": 1.0, "batch/wait_s": 0.0, "time/step_s": 1.1, "staleness/kl": kl})
    page = page_of(tmp_path)
    assert "groups of the recorded run a-1 (/runs/a), steps 2 to 7" in page.texts["td"]
    assert "KL from the sampling policy" in page.texts["h3"]
    assert not {"Staleness", "Weight sync", "Engine mismatch"} & set(page.texts["h3"])


def test_a_reward_model_has_its_own_charts(tmp_path):
    page = supervised_page(
        tmp_path,
        "reward-model",
        lambda step: {"reward_model/loss": 0.7 - step / 10, "reward_model/accuracy": 0.5},
        lambda step: {"source": "held_out", "accuracy": 0.5 + step / 5},
    )
    assert "Held-out accuracy on held_out went from 50% to 90% in 3 training steps" in " ".join(page.texts["p"])
    assert {"Loss", "Held-out accuracy", "Learning rate"} <= set(page.texts["h3"])
    assert not {"Reward", "Staleness", "Reflective words"} & set(page.texts["h3"])


@pytest.mark.parametrize(("use", "own_report"), [("eval", r"results\.md"), ("sample", r"report\.md")])
def test_a_command_with_its_own_report_is_refused_and_names_it(tmp_path, use, own_report):
    write_run(tmp_path, steps=1)
    of_command(tmp_path, use)
    with pytest.raises(ConfigError, match=own_report):
        build_report(tmp_path)


def heldout_row(step: int, problem: str, text: str, source: str = "bus") -> dict:
    row = {"step": step, "source": source, "prompt_id": problem, "prompt": f"problem {problem}", "text": text}
    return {**row, "reward": 1.0, "parts": {"accuracy": 1.0, "fluency": -2.5}, "finish_reason": "stop", "tokens": 3}


def test_responses_before_and_after_training_stand_side_by_side(tmp_path):
    write_run(tmp_path, steps=3)
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        for step, text in ((0, "early"), (2, "middle"), (3, "<b>late")):
            for problem in ("a", "b"):
                w.heldout_transcript(heldout_row(step, problem, f"{text} {problem}"))
        w.heldout_transcript(heldout_row(3, "c", "without a partner"))
        w.heldout_transcript(heldout_row(3, "a", "of another source", source="bus-long"))
    page = page_of(tmp_path)
    assert "Before and after" in page.texts["h2"]
    texts = [t for t in page.texts["div"] if t.startswith(("early", "middle", "<b>late", "without", "of another"))]
    assert texts == ["early a", "<b>late a", "early b", "<b>late b"]
    assert any("policy 0 (left) and policy 3 (right)" in text for text in page.texts["p"])


def test_rewards_that_evaluations_measure_have_charts_and_figures(tmp_path):
    write_run(tmp_path, steps=3, evaluate_every=0)
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        for step, fluency in ((0, -3.25), (3, -2.5)):
            w.evaluation({"step": step, "source": "bus", "accuracy": 0.5, "parts": {"fluency": fluency}})
    assert "Held-out fluency" in page_of(tmp_path).texts["h3"]
    found = figures(tmp_path)
    assert (found["heldout_part/fluency_start"], found["heldout_part/fluency"]) == (-3.25, -2.5)


@pytest.mark.parametrize(("end", "verdict"), [(-3.5, "within"), (-3.75, "beyond")])
def test_the_lead_says_whether_a_heldout_reward_stayed_within_its_bound(tmp_path, end, verdict):
    write_run(tmp_path, steps=3, evaluate_every=0)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["hacking_monitor"] = {"max_heldout_fall": {"fluency": 0.3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with MetricsWriter(tmp_path, tensorboard=False) as w:
        for step, fluency in ((0, -3.25), (3, end)):
            w.evaluation({"step": step, "source": "bus", "accuracy": 0.5, "parts": {"fluency": fluency}})
    assert f"with policy 3: {verdict} the bound of 0.3." in " ".join(page_of(tmp_path).texts["p"])
