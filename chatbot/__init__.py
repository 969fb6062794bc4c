"""Bots for Azure Communication Services Chat."""
