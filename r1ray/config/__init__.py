"""Typed configuration: `schema` declares the keys, `load` merges and checks their values."""
