"""Filters of poisoned training data."""
