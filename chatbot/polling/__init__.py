"""Polling: reads threads and the thread list, and decides what is new."""
