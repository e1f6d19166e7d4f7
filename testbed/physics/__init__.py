"""The emulated world behind the simulated nodes: what the links and cores truly do.

Nothing here is visible to the predictor. It sees only what the exporters
tell, with noise, gaps and delay, through a real Prometheus.
"""
