"""What the author of a bot tests it with: the real pipeline against the in-process service, no waiting."""

from chatbot.testing.event_stream import Author, EventStream, Handled, context

__all__ = ["Author", "EventStream", "Handled", "context"]
