"""How a task's data becomes a model."""
