"""Populations of models that judge the scanner: `python -m benchmarks.scanner make|tables`."""
