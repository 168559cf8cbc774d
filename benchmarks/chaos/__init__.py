"""Kill processes of a real run with SIGKILL at chosen moments, and measure the cost.

    machines.py   start, find, freeze and kill two Ray nodes and a driver on this machine
    observe.py    observe the run from outside: its ledger, status.json, events.jsonl
    moments.py    for each kind of kill: wait for its moment, freeze the process, kill it
    campaign.py   kill in a seeded order, wait for recovery after each, compute the figures

    python -m benchmarks.chaos conf/tiny.yaml --kills 25 --seed 0 run.dir=runs/chaos run.steps=80

The run has no hook or flag for this. SIGSTOP, sent to the process or to one that it waits for, freezes
it at the moment. The benchmark then checks that the moment has not passed, and only then kills it.
"""
