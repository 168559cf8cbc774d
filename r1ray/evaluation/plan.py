"""Plan of `r1ray eval`, from its command line. Errors are found before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from r1ray.config.checks import check
from r1ray.config.load import LoadedConfig, load_sources
from r1ray.config.problems import refuse
from r1ray.config.schema import Config
from r1ray.config.sources import Source, read_in_order
from r1ray.errors import ConfigError
from r1ray.evaluation.benchmarks.prepare import Prepared, prepare
from r1ray.evaluation.benchmarks.registry import find
from r1ray.evaluation.record import RECORD, contamination
from r1ray.models.folder import has_chat_template, model_hash, read_shape
from r1ray.sampling.job import Wanted
from r1ray.types import Sampling
from r1ray.util.files import read_json
from r1ray.util.machine import GIB, Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of the command."""

    benchmarks: tuple[str, ...]
    k: int | None = None  # None: each benchmark's own
    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int | None = None  # None: the rest of the model's context, at most 32,768
    limit: int | None = None  # problems of each benchmark; None: all
    data: Mapping[str, str]  # benchmark -> file, folder or hub id
    against: tuple[str, ...] = ()  # training data, for the decontamination report


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """An evaluation that may start. Producer: `make_plan`. Consumer: `r1ray eval`."""

    loaded: LoadedConfig
    prepared: tuple[Prepared, ...]
    wanted: tuple[Wanted, ...]
    record: dict[str, Any]  # evaluation.json


def make_plan(
    model: Path, out: Path, request: Request, overlays: Sequence[str], overrides: Sequence[str], machine: Machine
) -> EvaluationPlan:
    """The plan of a new evaluation. Raises ConfigError for wrong options, overlays or data."""
    if not request.benchmarks:
        raise ConfigError("--benchmarks: name at least one, e.g. gsm8k or bus")
    if not 0 < request.top_p <= 1:
        raise ConfigError(f"--top-p: expected a number > 0 and <= 1, got {request.top_p:g}")
    found = [find(spec) for spec in dict.fromkeys(request.benchmarks)]
    if strange := sorted(set(request.data) - {b.name for b in found}):
        raise ConfigError(f"--data {strange[0]}: it is not among --benchmarks")
    prepared = tuple(prepare(benchmark, request.data, request.limit) for benchmark in found)
    layers = [*read_in_order([]), _defaults(model, machine), *read_in_order(overlays)[1:]]
    last = Source(name="r1ray eval", content={"model": {"path": str(model)}, "run": {"dir": str(out)}}, lines={})
    loaded = load_sources([*layers, last], overrides, "eval")
    config = _with_sources(loaded.config, prepared, out)
    if (config.run.dir, config.model.path) != (str(out), str(model)):
        raise ConfigError("run.dir and model.path are --out and MODEL here: leave these keys out")
    longest = request.max_new_tokens or min(32_768, config.model.max_length - config.data.max_prompt_tokens)
    config = replace(config, rollout=replace(config.rollout, max_new_tokens=longest))
    refuse(check(config, "eval"), loaded.provenance)
    if longest < 1 or config.data.max_prompt_tokens + longest > config.model.max_length:
        raise ConfigError(
            f"--max-new-tokens {longest} does not fit beside data.max_prompt_tokens = "
            f"{config.data.max_prompt_tokens} into model.max_length = {config.model.max_length}"
        )
    wanted = tuple(_wanted(p, request, longest, config.run.seed) for p in prepared)
    record = {
        "model": str(model),
        "model_hash": model_hash(model),
        "seed": config.run.seed,
        "benchmarks": {
            p.name: {"digest": p.digest, "origin": p.origin, "problems": p.problems, "samples": w.samples,
                     "sampling": {k: v for k, v in asdict(w.sampling).items() if k != "seed"}}
            for p, w in zip(prepared, wanted, strict=True)
        },
        "contaminated": contamination(prepared, request.against),
        "request": json.loads(json.dumps(asdict(request))),
    }  # fmt: skip
    return EvaluationPlan(loaded=replace(loaded, config=config), prepared=prepared, wanted=wanted, record=record)


def resumed_plan(folder: Path, overlays: Sequence[str], overrides: Sequence[str], machine: Machine) -> EvaluationPlan:
    """The plan of the evaluation in `folder`, to resume it. Raises ConfigError if there is none."""
    if not (folder / RECORD).exists():
        raise ConfigError(f"{folder} holds no evaluation: it has no {RECORD}")
    record = read_json(folder / RECORD)
    request = dict(record["request"])
    request["benchmarks"], request["against"] = tuple(request["benchmarks"]), tuple(request["against"])
    stored = str((folder / "config.yaml").resolve())
    kept = [stored] if Path(stored).exists() else []
    return make_plan(Path(record["model"]), folder, Request(**request), [*kept, *overlays], overrides, machine)


def _wanted(prepared: Prepared, request: Request, longest: int, seed: int) -> Wanted:
    sampling = Sampling(temperature=request.temperature, top_p=request.top_p, max_new_tokens=longest, seed=seed)
    samples = request.k or prepared.benchmark.k
    if request.temperature == 0 and samples > 1:
        raise ConfigError(f"-k {samples} at temperature 0 would give the same answer {samples} times: -k 1")
    return Wanted(source=prepared.name, samples=samples, sampling=sampling)


def _with_sources(config: Config, prepared: Sequence[Prepared], out: Path) -> Config:
    """The configuration with the benchmarks as evaluation sources,
    each judged by its verifier and the other rewards.
    """
    shared = [r for r in config.rewards if r.name.partition("/")[0] != "accuracy"]
    names = [r.name for r in shared]
    sources = [replace(p.source(out), rewards=[p.reward.name, *names]) for p in prepared]
    data = replace(config.data, train=[], evaluation=sources, decontaminate=False, decontaminate_against=[])
    return replace(config, data=data, rewards=[*(p.reward for p in prepared), *shared])


def _defaults(model: Path, machine: Machine) -> Source:
    """Defaults that follow from the model and the machine; overlays and keys override them."""
    shape = read_shape(model)
    raw = read_json(model / "config.json")
    stored = str(raw.get("dtype") or raw.get("torch_dtype") or "float32")
    content: dict[str, Any] = {
        "run": {"name": f"eval of {model.name}"},
        "model": {"max_length": min(shape.context, 36_864), "dtype": stored if stored == "bfloat16" else "float32"},
        "data": {"max_prompt_tokens": min(4096, shape.context // 2)},
        "rollout": {"top_p": 1.0},
    }
    if not has_chat_template(model):
        content["data"]["template"] = "plain"
    if not machine.gpus:
        sequence = 2 * shape.layers * shape.key_value * 4 * content["model"]["max_length"]
        engine = {"enforce_eager": True, "kv_cache_gib": max(0.25, 4 * sequence / GIB)}
        content["rollout"] |= {"num_gpus": 0.0, "engine": engine}
        if not machine.cpu_bfloat16:
            content["model"]["dtype"] = "float32"
    return Source(name="the model and this machine", content=content, lines={})
