"""The typed configuration: one dataclass for each section of conf/base.yaml.

A field has everything about its key: type, choices (`Literal`), default, range and documentation (`annotations`).
conf/base.yaml is generated from it, see `base_yaml`. `load` checks single values, `checks` their combinations.
Units are in the names: `_s` seconds, `_tokens`, `_bytes`, `_gib`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from r1ray.config.annotations import Doc
from r1ray.config.sections.algorithm import AlgorithmConfig
from r1ray.config.sections.checkpoint import CheckpointConfig
from r1ray.config.sections.curation import CurationConfig, GeneralConfig, RefineConfig, ThresholdConfig
from r1ray.config.sections.data import DataConfig, SourceConfig
from r1ray.config.sections.deadlines import DeadlineConfig
from r1ray.config.sections.evaluation import EvaluationConfig
from r1ray.config.sections.hacking_monitor import HackingMonitorConfig
from r1ray.config.sections.hardware import HardwareConfig
from r1ray.config.sections.learner import LearnerConfig, OptimizerConfig
from r1ray.config.sections.logging import LoggingConfig
from r1ray.config.sections.model import LoraConfig, ModelConfig
from r1ray.config.sections.queue import QueueConfig
from r1ray.config.sections.ray import RayConfig
from r1ray.config.sections.recovery import RecoveryConfig
from r1ray.config.sections.replay import ReplayConfig
from r1ray.config.sections.reward_model import RewardModelConfig
from r1ray.config.sections.rewards import RewardConfig, RewardWorkerConfig
from r1ray.config.sections.rollout import AutoscaleConfig, EngineConfig, LengthConfig, RolloutConfig
from r1ray.config.sections.run import RunConfig
from r1ray.config.sections.sampling import SamplingConfig
from r1ray.config.sections.sft import SftConfig
from r1ray.config.sections.sync import SyncConfig

__all__ = [
    "AlgorithmConfig",
    "AutoscaleConfig",
    "CheckpointConfig",
    "Config",
    "CurationConfig",
    "DataConfig",
    "DeadlineConfig",
    "EngineConfig",
    "EvaluationConfig",
    "GeneralConfig",
    "HackingMonitorConfig",
    "HardwareConfig",
    "LearnerConfig",
    "LengthConfig",
    "LoggingConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "QueueConfig",
    "RayConfig",
    "RecoveryConfig",
    "RefineConfig",
    "ReplayConfig",
    "RewardConfig",
    "RewardModelConfig",
    "RewardWorkerConfig",
    "RolloutConfig",
    "RunConfig",
    "SamplingConfig",
    "SftConfig",
    "SourceConfig",
    "SyncConfig",
    "ThresholdConfig",
]


@dataclass
class Config:
    """The whole configuration of a run. Producer: `load_config`. Consumers: every process of the run."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rewards: Annotated[list[RewardConfig], Doc("rewards of a completion, which are added up by weight")] = field(
        default_factory=list
    )
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward_worker: RewardWorkerConfig = field(default_factory=RewardWorkerConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    hacking_monitor: HackingMonitorConfig = field(default_factory=HackingMonitorConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    curation: CurationConfig = field(default_factory=CurationConfig)
    deadlines: DeadlineConfig = field(default_factory=DeadlineConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
