"""Whole trainings of r1ray and of TRL's GRPOTrainer on the same model, prompts, rewards and sizes."""
