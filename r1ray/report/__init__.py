"""Self-contained HTML reports of runs and recipes.

    record, recipe_record   a run or recipe folder, read once; figures and claims
    texts                   what response texts show: reflection, corrections, language
    html, charts            elements, tables, line charts
    panels, run_sections    parts of a run page            run_page     the page of a run
    recipe_charts,
    recipe_sections         parts of a recipe page         recipe_page  the page of a recipe

See docs/report.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.report.panels import SECTIONS
from r1ray.report.recipe_page import render_recipe
from r1ray.report.recipe_record import is_recipe, load_recipe
from r1ray.report.record import load_record
from r1ray.report.run_page import render_run
from r1ray.run.folder import RunFolder
from r1ray.util.files import write_atomic
from r1ray.util.responses import REFLECTIVE_WORDS


def build_report(folder: Path, *, words: Sequence[str] = REFLECTIVE_WORDS) -> Path:
    """Write `report.html` into a run folder or a recipe folder, in any state, and return its path.

    `words` are the reflective words to count. Raises ConfigError if `folder` is neither, or belongs to
    a command that writes its own report.
    """
    if is_recipe(folder):
        text = render_recipe(load_recipe(folder), words)
    else:
        run = load_record(folder)
        if run.identity.use not in SECTIONS:
            own = {"eval": "results.md", "sample": "report.md"}.get(run.identity.use, "another file")
            raise ConfigError(f"{folder} is a run of `r1ray {run.identity.use}`: its report is the file {own} in it")
        text = render_run(run, words)
    path = RunFolder(folder).report
    write_atomic(path, text.encode("utf-8", "replace"))  # UTF-8 cannot encode a lone surrogate: it becomes "?"
    return path
