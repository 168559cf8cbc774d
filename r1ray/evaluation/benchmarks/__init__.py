"""Benchmarks by name: where their problems are, how they are put, who judges them, and how often each is sampled."""
