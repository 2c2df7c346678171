"""Who runs a plan: the native machine, and PyTorch."""
