"""Detectors of backdoored models."""
