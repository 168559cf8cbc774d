"""Sampling: many responses to the prompts of some sources, in shards that are whole or absent."""
