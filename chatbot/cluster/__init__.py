"""Several processes on one store: what they own, and what they tell each other. The bots see `Ownership` only."""
