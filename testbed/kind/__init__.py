"""A kind cluster with real kubelets, real traffic and links that really differ."""
