"""Rewards: what a response is worth, by rules that can be trusted. See docs/rewards.md.

base.py       Sample, Call, Reward          registry.py   rewards by name
answer.py     the answers of a response     accuracy.py   verifiers: math, exact, numeric, task; choice.py, code.py
scorer.py     groups in, scored groups out  form.py, language.py, length.py, repetition.py, user.py   other rewards
pool.py       worker processes that may be killed; zygote.py is what they are forked from
sandbox.py    foreign programs under bubblewrap, syscalls.py: what they are refused
programs.py   judges programs by their tests; guest.py and crossing.py are what runs inside
offline.py    scoring files
"""
