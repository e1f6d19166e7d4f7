"""From Kubernetes objects to the fair queue's events: which pods are a gang, how large, how they fare."""
