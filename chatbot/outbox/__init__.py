"""How wishes get done: in the order of their thread, within the quotas, each effectively once."""
