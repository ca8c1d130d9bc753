"""Detectors of triggered inputs at test time."""
