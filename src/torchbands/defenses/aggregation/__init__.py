"""Joining federated updates safely."""
