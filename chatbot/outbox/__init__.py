"""Sending: journalled actions of each thread, in order, within the quotas, each effectively once."""
