"""Readers of traces; every reader gives a `Workload` or raises `TraceError` naming file and line."""

from simulator.traces.reading import TraceError, read_trace

__all__ = ["TraceError", "read_trace"]
