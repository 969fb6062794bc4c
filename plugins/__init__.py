"""Example plugins to copy: each is one file, with its test in tests/plugins."""
