"""Robust federated averaging with Flower."""
