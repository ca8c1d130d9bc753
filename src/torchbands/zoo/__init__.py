"""Victims as directories: a card, weights and the trigger, each checked by sha256. No pickle is written or read."""

from .victims import load, save, verify

__all__ = ["load", "save", "verify"]
