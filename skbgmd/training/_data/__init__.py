"""Data of a training: checked inputs, loaders, samples with their weights and identities, encoded targets, scales."""
