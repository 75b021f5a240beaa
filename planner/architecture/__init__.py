"""A model as an inventory: from a name to its config, and from a config to matrices and the order they run in."""
