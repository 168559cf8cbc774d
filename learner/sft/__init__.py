"""Supervised fine-tuning: conversations in, a policy out."""
