"""Learning rates: the functional form (law) and looking one up (lookup)."""
