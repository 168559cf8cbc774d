"""`r1ray plan`: memory, rates, balance and a simulation of a run on given hardware. Starts nothing, needs no GPU."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ray.cli._output import JsonOption, print_json
from r1ray.cli._start import ConfigArgument, split

if TYPE_CHECKING:
    from r1ray.models.folder import ModelShape


HardwareOption = Annotated[
    str | None,
    typer.Option(
        metavar="GPUxN[,KEY=VALUE...]",
        help="Hosts to plan for, instead of the section `hardware`, whose keys may follow: h100x8,nodes=16.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add `plan`."""
    app.command()(plan)


def plan(
    config: ConfigArgument,
    as_json: JsonOption = False,
    hardware: HardwareOption = None,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Use the rates and lengths that were measured in this run.")
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(help="Mean length of a completion. Default: a third of rollout.max_new_tokens.")
    ] = None,
    spread: Annotated[float, typer.Option(help="Standard deviation of the length over its mean.")] = 0.7,
    steps: Annotated[int, typer.Option(help="Training steps to simulate.")] = 20,
    mtbf_hours: Annotated[float | None, typer.Option(help="Mean hours between failures of one host.")] = None,
    spot_hours: Annotated[
        float | None, typer.Option(help="Mean hours until a rollout host on spot capacity is reclaimed.")
    ] = None,
    slow_share: Annotated[float, typer.Option(help="Share of rollout workers that run at half their speed.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
) -> None:
    """Forecast a run: memory of every process, tokens/s, sync, checkpoints, staleness, and the best split of GPUs.

    The model need not be downloaded: the sizes of published models are found by the name of the folder.
    """
    from r1ray.config.load import load_config
    from r1ray.planning.calibrate import calibrate as fit
    from r1ray.planning.calibrate import measure, scenario_of
    from r1ray.planning.forecast import forecast, to_text
    from r1ray.planning.options import assumed_scenario, check_scenario, hardware_overrides, on_hosts
    from r1ray.planning.rates import Efficiency, Rates
    from r1ray.preflight.placement import make_plan
    from r1ray.util.machine import this_machine

    overlays, overrides = split(config)
    loaded = load_config(overlays, [*overrides, *(hardware_overrides(hardware) if hardware else [])])
    shape, machine = _shape(loaded.config.model.path), this_machine()
    resolved = on_hosts(loaded.config, machine)
    fitted = None if calibrate is None else fit(measure(calibrate, machine))
    changes = {
        "steps": steps,
        "mtbf_hours": mtbf_hours,
        "spot_hours": spot_hours,
        "slow_share": slow_share,
        "seed": seed,
    }
    base = assumed_scenario(resolved) if fitted is None else scenario_of(fitted, resolved)
    scenario = replace(base, **changes)  # type: ignore[arg-type]
    if tokens is not None:
        scenario = replace(scenario, mean_tokens=tokens, spread=spread, lengths=())
    elif fitted is None:
        scenario = replace(scenario, spread=spread)
    check_scenario(scenario, resolved.rollout.max_new_tokens)
    efficiency = Efficiency() if fitted is None else fitted.efficiency
    rates = Rates(config=resolved, shape=shape, efficiency=efficiency)
    found = forecast(make_plan(resolved, shape, machine), rates, scenario)
    if as_json:
        print_json(asdict(found) | {"efficiency": asdict(efficiency)})
    else:
        typer.echo(to_text(found, resolved))


def _shape(path: str) -> ModelShape:
    """The sizes of the model in the folder `path`, or, if it is not there, of the published model of that name."""
    from r1ray.models.folder import read_shape
    from r1ray.models.published import published_shape
    from r1ray.preflight.prepare import EMBEDDED, EMBEDDED_FOLDER

    folder = EMBEDDED_FOLDER if path == EMBEDDED else Path(path)
    known = None if folder.is_dir() else published_shape(path)
    return known or read_shape(folder)
