"""Kill processes of a real run with SIGKILL, at chosen moments, and measure what that costs.

    machines.py   two Ray nodes and a driver on this machine, as processes that can be found, frozen and killed
    observe.py    what is seen of the run from outside: its ledger, status.json, events.jsonl
    moments.py    for each kind of death: wait for its moment, hold the process there, kill it
    campaign.py   a seeded order of deaths, the wait for recovery after each, the figures at the end

    python -m benchmarks.chaos conf/tiny.yaml --kills 25 --seed 0 run.dir=runs/chaos run.steps=80

Nothing of the run knows of this: no hook, no flag, no cooperation. A process is held at a moment by SIGSTOP, of itself or of one
that it waits for; that the moment has not passed is checked while it is held, and only then is it killed.
"""
