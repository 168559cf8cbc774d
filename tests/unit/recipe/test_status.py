"""Digests: when two inputs of a recipe count as equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.errors import ConfigError
from r1ray.recipe.status import digest
from r1ray.util.imports import source_file
from tests.unit.model_folder import write_model


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
        "generation_config.json",
        "tokenizer.model",
        "merges.txt",
        "vocab.json",
    ],
)
def test_tokenizer_and_template_files_change_the_digest(tmp_path: Path, name: str) -> None:
    model = write_model(tmp_path / "model")
    seen = {digest(model)}
    (model / name).parent.mkdir(exist_ok=True)
    for content in ("{}\n", "{ }\n"):
        (model / name).write_text(content)
        seen.add(digest(model))
    assert len(seen) == 3


def test_other_files_do_not_change_the_digest(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    before = digest(model)
    for name in ("README.md", "LICENSE", "model.safetensors.index.json"):
        (model / name).write_text("something")
    assert digest(model) == before


def test_a_user_defined_reward_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "reward_that_fails_when_imported.py").write_text("raise RuntimeError\n")
    found = source_file("reward_that_fails_when_imported:f", what="the reward")
    assert found == tmp_path / "reward_that_fails_when_imported.py"
    for target in ("no_such_module_of_rewards:f", "no_such_package_of_rewards.inner:f"):
        with pytest.raises(ConfigError, match=f"the reward {target} cannot be found"):
            source_file(target, what="the reward")
