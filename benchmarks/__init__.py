"""How fast, against whom, and is it still right: `python -m benchmarks` (see docs/benchmarks.md)."""
