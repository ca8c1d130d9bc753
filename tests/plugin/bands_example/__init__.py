"""Importing this package registers its methods: that is all an entry point has to do."""

from bands_example import noise_prior, quiet, series

__all__ = ["noise_prior", "quiet", "series"]
