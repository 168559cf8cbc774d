"""Benchmarks by name: where their problems are, how they are phrased, which verifier judges them,
and samples per problem.
"""
