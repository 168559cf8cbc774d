"""Sampling jobs: k responses to every prompt of some sources, in shards that are complete or absent."""
