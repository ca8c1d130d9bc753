"""Training that resists poison."""
