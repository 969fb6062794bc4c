"""`.chat` files: conversations in text files that pytest runs as tests."""
