"""The checks of `r1ray doctor` on this machine, with those of a configuration if one is given.

Exit code of the command: 0 without errors (warnings do not count), 1 with errors, 2 for wrong arguments.
"""

from __future__ import annotations

from pathlib import Path

from r1ray.preflight.environment import check_environment
from r1ray.preflight.findings import Finding, error
from r1ray.preflight.node import NodeRequest, inspect
from r1ray.preflight.nodes import data_files, needs_sandbox
from r1ray.preflight.prepare import Preparation
from r1ray.preflight.storage import existing_folder
from r1ray.preflight.system import System, this_system


def examine(preparation: Preparation | None, system: System | None = None) -> list[Finding]:
    """Check this machine. With `preparation` also its model, its data and its run folder; else the working directory.

    Imports none of the packages that it reports on.
    """
    system = system or this_system("bubblewrap" if preparation is None else _sandbox_of(preparation))
    if preparation is None:
        return [*inspect(NodeRequest(thorough=True, joins=False, run_dir=str(Path.cwd())), system).findings]
    config, built = preparation.loaded.config, preparation.model_is_built
    request = NodeRequest(
        thorough=True,
        joins=config.ray.address is not None,
        model=config.model.path if built else None,
        data=data_files(config),
        run_dir=str(existing_folder(Path(config.run.dir))),
        sandbox=config.reward_worker.sandbox if needs_sandbox(config, preparation.use) else None,
    )
    found = list(inspect(request, system).findings)
    if built and not any(f.what == "model.path" and f.verdict == "error" for f in found):
        problems = [
            p for p in check_environment(config, preparation.machine, preparation.use) if p.key not in request.data
        ]
        problems += preparation.plan().problems
        found += [error(p.key, p.message, meaning="no run starts", fix=p.fix or "") for p in problems]
    return found


def _sandbox_of(preparation: Preparation) -> str:
    return preparation.loaded.config.reward_worker.sandbox
