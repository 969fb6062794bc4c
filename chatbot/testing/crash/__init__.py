"""Crash tests: kill bots at every point of a conversation, and compare how it ended."""
