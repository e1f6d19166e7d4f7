"""The fair queue: users share the cluster by weight, gangs are released in the order of a settled fair clock.

Pure: no I/O, clock, logging or random. `gatekeeper.Gatekeeper` is the only way in; see README.md.
"""
