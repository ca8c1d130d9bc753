"""Repairs: removing a backdoor from a model."""
