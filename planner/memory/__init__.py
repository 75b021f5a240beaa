"""Peak memory of a fine-tune, in closed form (being built)."""
