"""A training from its start to its end: resumed, interrupted, stopped early, saved."""
