"""Trace replay: the production queue beside the published policies, on one heap of events."""
