"""Tables of the ledger. Their constraints refuse invalid states, and `audit` checks them independently.

A prompt has no row of its own. Its state is that of its one *current* group, which no later attempt has superseded
(`fate` is not 'reissued'). The index `one_state_per_prompt` makes a second current group impossible.
"""

from __future__ import annotations

APPLICATION_ID = int.from_bytes(b"r1ra", "big")
"""`PRAGMA application_id`: distinguishes a ledger from other SQLite files."""

SCHEMA_VERSION = 2
"""`PRAGMA user_version`: counts changes of the tables below and of the names of the stored settings."""

WELL_FORMED = """
  group_id = prompt_index || '-' || attempt AND prompt_index >= 0 AND attempt >= 1
  AND state IN ('leased', 'scored', 'taken', 'trained', 'dropped')
  AND (state = 'dropped') = (cause IS NOT NULL)
  AND (state = 'dropped') = (reason IS NOT NULL)
  AND (state = 'dropped') = (fate IS NOT NULL)
  AND (cause IS NULL OR cause IN ('returned', 'failed', 'stale', 'no_signal'))
  AND (fate IS NULL OR fate IN ('queued', 'reissued', 'final'))
  AND (step IS NULL) = (slot IS NULL)
  AND CASE WHEN state IN ('taken', 'trained') THEN step IS NOT NULL ELSE step IS NULL OR state = 'scored' END
  AND (state IN ('leased', 'dropped')
       OR (scored_order IS NOT NULL AND scored_at IS NOT NULL AND prompt_tokens IS NOT NULL AND rewards IS NOT NULL
           AND completion_tokens IS NOT NULL AND min_version IS NOT NULL AND max_version >= min_version))
"""
"""Condition on every row of `groups`. The table refuses other rows.

The audit checks it again, because SQLite's integrity check skips CHECK constraints on a read-only connection.
"""

TABLES = f"""
CREATE TABLE meta (                     -- run_id, settings (JSON), pruned_before (step), copied_at, lineage
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE steps (                    -- training steps that have a batch
  step INTEGER PRIMARY KEY CHECK (step >= 0),
  max_staleness INTEGER NOT NULL CHECK (max_staleness >= 0),  -- the bound that the batch was taken under
  bound_at REAL NOT NULL
) STRICT;

CREATE TABLE groups (
  group_id TEXT PRIMARY KEY,
  prompt_index INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  worker_id TEXT NOT NULL,
  version INTEGER NOT NULL CHECK (version >= 0),  -- policy that the worker served at the lease
  leased_at REAL NOT NULL,
  deadline REAL NOT NULL,
  state TEXT NOT NULL,

  -- of dropped groups
  cause TEXT,                           -- returned (not the prompt's fault), failed (its fault), stale, no_signal
  reason TEXT CHECK (reason <> ''),     -- more exactly: 'lease_expired', 'VerifierError', 'stale', ...
  fate TEXT,                            -- of the prompt: queued (to be leased again), reissued, or final (given up)

  -- of scored groups
  scored_order INTEGER UNIQUE,          -- in order of completion
  scored_at REAL,
  prompt_tokens INTEGER,
  completion_tokens TEXT,               -- JSON, one number per completion
  rewards TEXT,                         -- JSON, one number per completion
  min_version INTEGER,
  max_version INTEGER,

  -- of groups bound to a step; after a rollback they are scored and still bound
  step INTEGER REFERENCES steps,
  slot INTEGER CHECK (slot >= 0),       -- place in the batch

  UNIQUE (prompt_index, attempt),
  UNIQUE (step, slot),
  CHECK ({WELL_FORMED})
) STRICT;

CREATE UNIQUE INDEX one_state_per_prompt ON groups (prompt_index) WHERE fate IS NOT 'reissued';
CREATE INDEX by_state ON groups (state, step, scored_order);
CREATE INDEX queued_prompts ON groups (prompt_index) WHERE fate = 'queued';
CREATE INDEX drops ON groups (reason, fate) WHERE state = 'dropped';

CREATE TABLE payloads (                 -- packed ScoredGroup
  group_id TEXT PRIMARY KEY REFERENCES groups,
  payload BLOB NOT NULL
) STRICT;

CREATE TABLE commits (                  -- checkpoints that groups were trained into
  policy_version INTEGER PRIMARY KEY CHECK (policy_version >= 0),
  checkpoint TEXT NOT NULL,
  committed_at REAL NOT NULL
) STRICT;

CREATE TABLE published (                -- weights that the learner sent to workers
  version INTEGER NOT NULL CHECK (version >= 0),
  incarnation INTEGER NOT NULL CHECK (incarnation >= 0),
  digest TEXT NOT NULL,
  published_at REAL NOT NULL,
  PRIMARY KEY (version, incarnation)
) STRICT, WITHOUT ROWID;
"""
