"""Translating one big file by several workers, on this machine or on many: in order, in shards, each done once."""
