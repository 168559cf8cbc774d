"""Check `rollout.engine.extra` against the arguments of the installed vLLM."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from r1ray.config.problems import Problem
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.util.hints import closest


def engine_key_problems(config: Config) -> Iterator[Problem]:
    """Keys of `rollout.engine.extra` that vLLM's EngineArgs lacks: a worker would fail on them at every start."""
    extra = config.rollout.engine.extra
    if not extra:
        return
    known = engine_fields()
    yield from _quantization(extra.get("quantization"))
    for name in sorted(set(extra) - set(known)):
        message = "is no argument of vLLM's EngineArgs"
        meant = closest(name, known)
        fix = f"did you mean {meant}?" if meant else "leave it out; `vllm serve --help` lists them"
        yield Problem(key=f"rollout.engine.extra.{name}", value=extra[name], message=message, fix=fix)


def _quantization(method: object) -> Iterator[Problem]:
    if method is None or method in (known := quantization_methods()):
        return
    meant = closest(str(method), known)
    fix = f"did you mean {meant}?" if meant else f"one of {', '.join(known)}"
    key, message = "rollout.engine.extra.quantization", "is no quantization of the installed vLLM"
    yield Problem(key=key, value=method, message=message, fix=fix)


def quantization_methods() -> list[str]:
    """The names of vLLM's quantizations, read from its source. Raises ConfigError as `engine_fields` does."""
    file = _vllm() / "model_executor" / "layers" / "quantization" / "__init__.py"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and "QuantizationMethods" in {getattr(t, "id", "") for t in node.targets}:
            return [str(leaf.value) for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)]
    raise ConfigError(f"{file} names no quantization: install the version of vLLM that r1ray is pinned to")


def engine_fields() -> list[str]:
    """The names of vLLM's engine arguments, read from its source: importing vLLM takes 17 s.

    Raises ConfigError if vLLM is not installed or its source has another form.
    """
    file = _vllm() / "engine" / "arg_utils.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    fields = [
        statement.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs"
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
    if not fields:
        raise ConfigError(f"{file} defines no EngineArgs: install the version of vLLM that r1ray is pinned to")
    return fields


def _vllm() -> Path:
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("vLLM is not installed; `make install`, and `r1ray doctor` lists what is missing")
    return Path(spec.submodule_search_locations[0])
