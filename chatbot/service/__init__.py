"""The chat service: the protocol that bots use, quotas, and its implementation over the official SDK."""
