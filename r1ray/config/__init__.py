"""Typed configuration: `schema` says what there is, `load` merges and checks it."""
