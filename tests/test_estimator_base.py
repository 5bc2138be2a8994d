"""What the estimators share; most of it is tested through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LinearRegression

from skbgmd import BlockGMDClassifier
from skbgmd.estimator_base import _seeded, restored_on_error


def _half_done(model):
    with restored_on_error(model):
        model.coef_, model.n_features_in_ = 2.0, 3
        raise KeyboardInterrupt


def test_restored_on_error():
    model = LinearRegression()
    model.coef_ = 1.0
    with pytest.raises(KeyboardInterrupt):
        _half_done(model)
    assert vars(model) == {**vars(LinearRegression()), "coef_": 1.0}
    with restored_on_error(model):
        model.coef_ = 2.0
    assert model.coef_ == 2.0


def test_seeding_leaves_the_generators_as_they_were(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("CUDA generators were seeded"))
    before = torch.get_rng_state()
    with _seeded(3, "cpu"):
        first = torch.rand(4)
    with _seeded(3, "cpu"):
        assert torch.equal(torch.rand(4), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_seeding_a_device():
    before = torch.cuda.get_rng_state()
    with _seeded(3, "cuda"):
        first = torch.rand(4, device="cuda")
    with _seeded(3, "cuda"):
        assert torch.equal(torch.rand(4, device="cuda"), first)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "fused"),
    [
        ({}, True),
        ({"optimizer": torch.optim.AdamW}, True),
        ({"optimizer__fused": False}, False),
        ({"optimizer__foreach": True}, None),
        ({"optimizer__amsgrad": True}, True),
        ({"optimizer": torch.optim.SGD}, None),
    ],
)
def test_adam_is_fused_unless_told_otherwise(settings, fused):
    """One pass over the parameters in place of a dozen; the same steps but for rounding."""
    X, y = make_classification(60, n_features=4, random_state=0)
    model = BlockGMDClassifier(max_epochs=3, random_state=0, **settings).fit(X, y)
    assert model.net_.optimizer_.param_groups[0].get("fused") is fused
    if fused:
        plain = BlockGMDClassifier(max_epochs=3, random_state=0, **{**settings, "optimizer__fused": False}).fit(X, y)
        np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-5)
