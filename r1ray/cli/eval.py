"""`r1ray eval`: evaluate a model on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ray.cli import _start
from r1ray.cli._output import console
from r1ray.errors import ConfigError
from r1ray.util.imports import add_import_folders

if TYPE_CHECKING:
    from r1ray.evaluation.plan import EvaluationPlan


def register(app: typer.Typer) -> None:
    """Add `eval`."""
    app.command(name="eval")(evaluate)


DATA = typer.Option(
    metavar="NAME=PLACE", help="Where a benchmark's problems are: file, folder or Hugging Face id; may be repeated."
)
AGAINST = typer.Option(
    metavar="DATA", help="Training data to compare with, for the contamination report; may be repeated."
)


def evaluate(
    context: typer.Context,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL CONFIG|KEY=VALUE", help="Model or run folder, then configuration files and single keys."
        ),
    ] = None,
    benchmarks: Annotated[str, typer.Option(help="Benchmarks, separated by commas, e.g. gsm8k,aime24,bus:n=4-7.")] = "",
    k: Annotated[
        int | None, typer.Option("-k", "--k", min=1, help="Samples per problem. Default: each benchmark's own.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Nucleus sampling: the probability mass to sample from.")] = 0.95,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest completion. Default: what the model's context leaves, at most 32,768."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only this many problems of each benchmark.")] = None,
    data: Annotated[list[str] | None, DATA] = None,
    against: Annotated[list[str] | None, AGAINST] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default: runs/eval-MODEL.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the evaluation in this folder.")] = None,
    dry_run: _start.DryRunOption = False,
) -> None:
    """Evaluate a model on benchmarks: pass@1, pass@k and cons@k. Every sample is kept.

    Example: r1ray eval runs/tiny --benchmarks bus:n=4-7 -k 4
    """
    from r1ray.evaluation.plan import Request, make_plan, resumed_plan
    from r1ray.run.policy import find_policy
    from r1ray.util.machine import this_machine

    words, overrides = _start.split(items)
    if resume is not None:
        _refuse_others(context)
        plan, folder = resumed_plan(resume, words, overrides, this_machine()), resume
    else:
        if not words:
            raise ConfigError("give a model or run folder: r1ray eval MODEL --benchmarks ...")
        model = find_policy(Path(words[0])).ready().model
        folder = out or Path("runs") / f"eval-{Path(words[0]).name}"
        request = Request(
            benchmarks=tuple(filter(None, benchmarks.split(","))),
            k=k,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            limit=limit,
            data=_pairs(data or []),
            against=tuple(against or []),
        )
        plan = make_plan(model, folder, request, words[1:], overrides, this_machine())
    _run(plan, folder, dry_run=dry_run)


def _refuse_others(context: typer.Context) -> None:
    """Raise ConfigError if another option is given with --resume: the evaluation that was begun decides them."""
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name not in ("items", "resume", "dry_run") and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"--resume and {parameter.opts[0]} exclude each other: a resumed evaluation keeps its options; "
                "start another one with another --out"
            )


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        name, equals, place = item.partition("=")
        if not (name and equals and place):
            raise ConfigError(f"--data {item}: write NAME=PLACE, e.g. gsm8k=data/gsm8k/test.jsonl")
        pairs[name] = place
    return pairs


def _run(plan: EvaluationPlan, folder: Path, *, dry_run: bool) -> None:
    from r1ray.evaluation.record import RECORD, SAMPLES, check_same, to_markdown, write_record, write_results
    from r1ray.launch.sampling import run_sampling
    from r1ray.preflight.prepare import Preparation, folders_of
    from r1ray.run.folder import RunFolder
    from r1ray.sampling.job import parts_of
    from r1ray.sampling.store import missing_parts
    from r1ray.util.machine import this_machine

    add_import_folders(folders_of(plan.loaded))
    existing = RunFolder.open(folder) if (folder / "run.json").exists() else None
    if existing is not None:
        check_same(existing, plan.record, plan.loaded)
    preparation = Preparation(loaded=plan.loaded, machine=this_machine(), use="eval", existing=existing)
    _start.check(preparation, dry_run=dry_run, benchmarks=plan.prepared)
    if dry_run:
        return
    for made in plan.prepared:
        made.write(folder)
    with preparation.folder() as run:
        if not (folder / RECORD).exists():
            write_record(folder, plan.record)
        sizes = {made.name: made.problems for made in plan.prepared}
        parts = parts_of(sizes, plan.loaded.config.sampling.prompts_per_part)
        sampled = not missing_parts(folder / SAMPLES, parts)
        if not sampled and not run_sampling(plan.loaded, run, SAMPLES, wanted=plan.wanted, use="eval"):
            console.print(f"Stopped. Continue with `r1ray eval --resume {folder}`.")
            return
        results = write_results(folder, plan.record, plan.prepared)
    typer.echo(to_markdown(results))
