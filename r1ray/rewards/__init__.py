"""Rewards: score responses by verifiable rules and models. See docs/rewards.md.

base.py       Sample, Call, Ask, Reward       registry.py   rewards by name; params.py, plugins.py
scorer.py     groups in, scored groups out    failures.py   names and kinds of scoring failures
offline.py    score files                     data_check.py check data files
answers/      is the answer right?            text/         how is it written?
execution/    does the program work?          learned/      what do models think of it?
workers/      processes with a time limit
"""
