"""The fake-tensor level: a real training step without weights."""
