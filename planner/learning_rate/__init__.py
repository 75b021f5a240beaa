"""Learning rates: a law's form, what it says of a run, fits to sweeps, and the parametrisations of trainers."""
