"""Forecasts of a run before it starts: memory, rates, balance and a simulation of its pipeline (`r1ray plan`)."""
