"""Taking a backdoor out of a model."""
