"""Checks of `chatbot doctor`: one module per area; each check yields findings with a remedy."""
