"""Real workloads on the kind cluster, as users bring them: six scenarios, each with a verdict and figures."""
