"""How a bot notices: `cursor` decides what is new, `poller` reads, `doorbell` and `cadence` decide when to look."""
