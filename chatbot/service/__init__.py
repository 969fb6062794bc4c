"""The chat service, spoken to in our words: `base` promises, `acs` keeps the promise with the official SDK."""
