"""r1ray: reinforcement learning of reasoning models on Ray, vLLM and DeepSpeed."""

__version__ = "0.1.0"
