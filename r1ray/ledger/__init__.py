"""Durable replay queue: the state of every prompt, from the lease to the trained step.

    leases.py    lease, hand back leases        (rollout workers)
    intake.py    put, fail                      (reward workers)
    batches.py   take, commit, rollback, prune  (learner)
    ledger.py    `Ledger`: the only writer, one transaction per call
    reader.py    `LedgerReader`: read-only access, while the run is live or after it ended
    lengths.py   `length_quartiles`: trained against leased groups by length
    audit.py     `audit`: checks the invariants from the file alone
    copies.py    `write_copy`: a copy of the ledger in use
    provide.py   `provide`: find, restore or create the ledger of a run
    adoption.py  `adopt`: batches that an older copy does not know
    schema.py, storage.py, summary.py, records.py: tables, connections, columns of a group, public records

See docs/ledger.md for the states and the failure modes.
"""

from r1ray.ledger.audit import AuditReport, AuditRow, Violation, audit
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.lengths import LengthQuartile
from r1ray.ledger.reader import LedgerReader
from r1ray.ledger.records import GroupRecord, Lease, LedgerSettings, LedgerStatus, PutOutcome, RolledBack

__all__ = [
    "AuditReport",
    "AuditRow",
    "GroupRecord",
    "Lease",
    "Ledger",
    "LedgerReader",
    "LedgerSettings",
    "LedgerStatus",
    "LengthQuartile",
    "PutOutcome",
    "RolledBack",
    "Violation",
    "audit",
]
