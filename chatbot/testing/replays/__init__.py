"""Replay a conversation with today's code, in processes of their own: for `chatbot replay` and the playground."""
