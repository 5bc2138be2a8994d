"""Nets out of the ordinary, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from skorch.dataset import Dataset


class Renamed:
    """Other names for the module and the loss, to be put in front of a class of nets."""

    def initialize_criterion(self):
        self.loss_ = self.initialized_instance(self.criterion, self.get_params_for("criterion"))
        return self

    def initialize_module(self):
        self.network_ = self.initialized_instance(self.module, self.get_params_for("module"))
        return self

    def infer(self, x, **fit_params):
        return self.network_(x)

    def get_loss(self, predicted, y, *args, **kwargs):
        return self.loss_(predicted, y)


def dataset_of(X: Any, y: Any, sample_weight: Any = None, clients: Any = None) -> Dataset:
    """A skorch dataset whose samples have weights and clients, as estimators make them."""
    dataset = Dataset(X, y)
    dataset.sample_weight, dataset.clients = sample_weight, clients
    return dataset
