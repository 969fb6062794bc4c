"""Where a bot's memory lives: `base` promises, `memory` and `sqlite` keep the promise, `codec` is their one format."""
