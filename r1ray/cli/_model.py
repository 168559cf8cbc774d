"""Arguments and options of the commands that load a model: `chat` and `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Model folder, or the folder of a run or recipe, whose final model is used."),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        help="Prompt template (data.template). Default: that of the training, else the tokenizer's, else plain."
    ),
]
