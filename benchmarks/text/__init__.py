"""Measurements on text."""
