"""Watching the bots that run: what is counted, how they are doing, and the pages that tell it."""
