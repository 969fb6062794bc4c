"""What the author of a bot tests it with: the real pipeline against the in-process service, no waiting."""
