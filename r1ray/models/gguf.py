"""Convert a GGUF file to a model folder in the Hugging Face format: `python -m r1ray.models.gguf FILE OUT`.

The weights are dequantised to float32, because neither the learner nor the weight transfer knows GGUF's blocks. Needs
the packages gguf and accelerate (conf/pins/smollm2.txt). Tried with SmolLM2-135M-Instruct only.

    FILE --transformers--> OUT.part, checked --rename--> OUT
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError, IntegrityError
from r1ray.util.files import read_json, write_atomic

RECORD = "conversion.json"
"""File in the model folder that says what it was made from."""
PROSE = (
    "The sun rises in the east and sets in the west. In the morning people get up, have breakfast with their families "
    "and go to work. In the evening they come home, cook dinner and talk about their day."
)
MAX_NATS = 3.0
"""Bound of the mean loss on PROSE, in nats per token, which weights in a wrong order are meant to exceed."""


def convert(file: Path, out: Path) -> bool:
    """Convert `file` to the folder `out`; returns whether that was necessary.

    A folder that was made from the same file is kept. Raises ConfigError if `file` or a package is missing or `out`
    holds something else, IntegrityError if the result fails a check.
    """
    if not file.is_file():
        raise ConfigError(f"{file} is no file: give the path of a GGUF file")
    made_from = {"file": file.name, "sha256": _sha256(file)}
    if (out / RECORD).exists() and read_json(out / RECORD) == made_from:
        return False
    if out.exists():
        raise ConfigError(f"{out} exists and was not made from {file}: move it away, or give another folder")
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the conversion needs {' and '.join(missing)}: pip install -r conf/pins/smollm2.txt")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write(file, part)
        write_atomic(part / RECORD, json.dumps(made_from, indent=1).encode())
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return True


def write_tokenizer(file: Path, folder: Path) -> None:
    """Write the tokenizer and the chat template of `file` to `folder`.

    Raises IntegrityError if there is no template, or if the written tokenizer splits or frames text differently.
    """
    from transformers import AutoTokenizer

    from r1ray.data.tokenizer import PROBES, load_tokenizer

    original = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    if original.chat_template is None:
        raise IntegrityError(f"{file} has no chat template: convert an instruction-tuned model")
    original.save_pretrained(folder)
    written = load_tokenizer(str(folder))
    if written.eos_token_id != original.eos_token_id or written.chat_template != original.chat_template:
        raise IntegrityError(f"the end token or the chat template of {file} changed when it was written to {folder}")
    chat = original.apply_chat_template(
        [{"role": "user", "content": PROSE}], tokenize=False, add_generation_prompt=True
    )
    for text in (*PROBES, PROSE, chat):
        if list(written.encode(text)) != list(original.encode(text)):
            raise IntegrityError(f"the tokenizer written to {folder} splits {text[:40]!r} differently than {file}")


def _write(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    write_tokenizer(file, folder)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = file.stem
    model.save_pretrained(folder)
    _check(model, folder)


def _check(original: Any, folder: Path) -> None:
    """Raise IntegrityError if the written folder differs from the model, or does not know English."""
    import torch
    from transformers import AutoModelForCausalLM

    from r1ray.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = dict(original.named_parameters())
    for name, weight in model.named_parameters():
        if weight.dtype != torch.float32 or not torch.equal(weight, weights[name]):
            raise IntegrityError(f"{folder}: {name} reads back differently than it was converted")
    if len(tokenizer.get_vocab()) > model.config.vocab_size or model.config.eos_token_id != tokenizer.eos_token_id:
        raise IntegrityError(f"{folder}: the tokenizer and config.json disagree about the vocabulary or the end token")
    ids = torch.tensor([tokenizer.encode(PROSE)])
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    if not loss < MAX_NATS:
        raise IntegrityError(
            f"{folder}: the loss on plain English is {loss:.2f} nats per token (perplexity {math.exp(loss):.0f}), "
            "expected "
            f"below {MAX_NATS:g}: the weights were converted wrongly"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main(arguments: list[str]) -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m r1ray.models.gguf", description=__doc__)
    parser.add_argument("file", type=Path, help="GGUF file")
    parser.add_argument("out", type=Path, help="model folder to write")
    given = parser.parse_args(arguments)
    done = convert(given.file, given.out)
    print(f"{given.out} {'written' if done else 'is up to date'}: float32 weights of {given.file.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
