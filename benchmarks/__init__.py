"""The measurements: python -m benchmarks."""
