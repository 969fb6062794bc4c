"""Calibration: asks a resource what its documentation does not say, and compares that with the emulator's quirks.

`chatbot doctor --probe` runs it. It uses throw-away users and threads only.
"""
