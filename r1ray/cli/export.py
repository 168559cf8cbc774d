"""`r1ray export`: write a model folder with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli._output import console

DTYPES = ("float32", "bfloat16", "float16")


def register(app: typer.Typer) -> None:
    """Add `export`."""
    app.command()(export)


def export(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Run folder, recipe folder or model folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist.")],
    dtype: Annotated[
        str | None, typer.Option(help="Store the weights as float32, bfloat16 or float16. Default: the stored type.")
    ] = None,
) -> None:
    """Write a model in the Hugging Face format to share: weights, tokenizer and a model card.

    For a run without a final model, the newest complete checkpoint is exported.
    """
    from r1ray.errors import ConfigError
    from r1ray.models.card import Exported, model_card
    from r1ray.models.folder import model_hash, read_shape
    from r1ray.run.policy import find_policy

    if dtype not in (None, *DTYPES):
        raise ConfigError(f"--dtype {dtype} is unknown: choose one of {', '.join(DTYPES)}")
    if out.exists():
        raise ConfigError(f"{out} exists, and nothing is overwritten: give another folder")
    policy = find_policy(source)
    from learner.release import find_weights, write_release
    from r1ray.data.chat_template import chat_template
    from r1ray.data.tokenizer import load_tokenizer

    weights = find_weights(
        policy.model,
        checkpoints=policy.run / "checkpoints" if policy.run else None,
        base=policy.setting("model", "path"),
        dtype=policy.setting("model", "dtype"),
    )
    stored = dtype or weights.dtype
    args = policy.template_args
    kept = (None, "none") if args else (None, "tokenizer", "none")  # templates that leave the model's own in place
    template = policy.template if policy.template not in kept else None
    jinja = chat_template(template, load_tokenizer(str(weights.model)), args) if template else None

    def card(folder: Path) -> str:
        shape, digest = read_shape(folder), model_hash(folder)
        told = Exported(name=out.name, shape=shape, dtype=stored, weights=weights.name, model_hash=digest)
        return model_card(policy, told)

    write_release(weights, out, dtype=stored, chat_template=jinja, card=card)
    console.print(f"Wrote {out}: {weights.name}, {stored}, with its card in README.md.", soft_wrap=True)
