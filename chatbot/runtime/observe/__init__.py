"""Counters, status, metrics, log context and traces of the running bots."""
