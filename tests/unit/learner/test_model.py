"""Loading a policy from a folder that nobody has vouched for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.engine_arguments import engine_arguments
from learner.model import empty_policy
from r1ray.config.schema import Config, ModelConfig
from r1ray.data.tokenizer import load_tokenizer
from r1ray.errors import ConfigError


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A model folder whose code leaves a trace when it runs."""
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    folder = tmp_path / "model"
    folder.mkdir()
    for module in ("configuration_own", "modeling_own", "tokenization_own"):
        (folder / f"{module}.py").write_text(code)
    auto = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    words = {"AutoTokenizer": ["tokenization_own.T", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T", "auto_map": words}))
    return folder


def test_code_in_a_models_folder_does_not_run_unless_it_is_trusted(hostile: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded as a causal language model"):
        empty_policy(ModelConfig(path=str(hostile)), hostile)
    with pytest.raises(ConfigError, match="cannot load a tokenizer"):
        load_tokenizer(str(hostile))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_engines_trust_a_models_code_as_the_learner_does(trusted: bool) -> None:
    config = Config()
    config.model.path, config.model.trust_remote_code = "m", trusted
    assert engine_arguments(config, "m")["trust_remote_code"] is trusted
