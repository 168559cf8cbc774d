"""What makes a run this run: the content of run.json."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from r1ray import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Content of run.json. A resume with another vocabulary, model or configuration is refused."""

    vocab_hash: str  # of the model's tokenizer
    model_hash: str  # of the sizes and weights that training starts from
    config_hash: str  # of the configuration without the keys that a resume may change, see `r1ray.config.identity`
    run_id: str
    created: float  # seconds since the epoch
    r1ray: str  # version that started the run
    use: str = "train"  # the command that started the run

    @classmethod
    def new(cls, *, vocab_hash: str, config_hash: str, model_hash: str, use: str = "train") -> RunIdentity:
        """The identity of a run that starts now."""
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + uuid.uuid4().hex[:6]
        return cls(
            vocab_hash=vocab_hash,
            model_hash=model_hash,
            config_hash=config_hash,
            run_id=run_id,
            created=time.time(),
            r1ray=__version__,
            use=use,
        )
