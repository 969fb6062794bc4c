"""`python -m chatbot` is `chatbot`."""

import sys

from chatbot.cli import main

if __name__ == "__main__":
    sys.exit(main())
