"""One robust training step: rows of a batch, their aggregate and its state, trust in samples, the record."""
