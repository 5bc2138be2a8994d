"""Corruption of features: what is spoiled, what is left alone, and where."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skbgmd.corruption import FeatureCorruption, GaussianNoise, ImpulseNoise
from skbgmd.corruption.features import add_gaussian_noise, salt_and_pepper

KINDS = [GaussianNoise, ImpulseNoise]


@pytest.mark.parametrize("kind", KINDS)
@given(
    n=st.integers(1, 40),
    fraction=st.sampled_from([0.0, 0.1, 0.25, 0.29, 0.3, 1 / 3, 0.49]),
    seed=st.integers(0, 2**32 - 1),
    single=st.booleans(),
)
def test_exactly_the_drawn_rows_change(kind, n, fraction, seed, single):
    X = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32 if single else np.float64)
    before = X.copy()
    corruption = kind(fraction=fraction, random_state=seed)
    result = corruption.fit_transform(X)
    assert corruption.corrupted_.sum() == np.floor(fraction * n + 1e-9)
    assert result.dtype == X.dtype
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(result[~corruption.corrupted_], X[~corruption.corrupted_])
    # One row of five normal numbers can be its own minimum and maximum only if it is alone.
    if kind is GaussianNoise:
        assert (result[corruption.corrupted_] != X[corruption.corrupted_]).all()
    np.testing.assert_array_equal(clone(corruption).fit_transform(X), result)


@pytest.mark.parametrize("kind", KINDS)
def test_more_rows_include_those_of_fewer(kind):
    X = np.random.default_rng(0).normal(size=(50, 3))
    masks = []
    for fraction in (0.1, 0.2, 0.4):
        corruption = kind(fraction=fraction, random_state=5)
        corruption.fit_transform(X)
        masks.append(corruption.corrupted_)
    assert (masks[0] <= masks[1]).all()
    assert (masks[1] <= masks[2]).all()


def test_gaussian_noise_has_its_standard_deviation():
    X = np.full((200, 300), 3.0)
    noise = GaussianNoise(fraction=0.4, std=2.5, random_state=0)
    moved = noise.fit_transform(X)[noise.corrupted_] - 3.0
    assert moved.std() == pytest.approx(2.5, rel=0.01)
    assert moved.mean() == pytest.approx(0.0, abs=0.05)


def test_noise_is_added_to_the_rows():
    rows = np.arange(6.0).reshape(2, 3)
    expected = rows + 7.0 * np.random.RandomState(3).standard_normal((2, 3))
    np.testing.assert_array_equal(add_gaussian_noise(rows, 7.0, np.random.RandomState(3)), expected)


@pytest.mark.parametrize("amount", [0.0, 0.3, 0.9, 1.0])
def test_salt_and_pepper_by_shares(amount):
    rows = np.full((100, 400), 0.5)
    noisy = salt_and_pepper(rows, amount, 0.0, 1.0, np.random.RandomState(0))
    assert set(np.unique(noisy)) <= {0.0, 0.5, 1.0}
    assert (noisy == 0.0).mean() == pytest.approx(amount / 2, abs=0.01)
    assert (noisy == 1.0).mean() == pytest.approx(amount / 2, abs=0.01)


def test_impulses_are_each_features_own_extremes(rng):
    X = rng.normal(size=(60, 4)) * [1.0, 10.0, 100.0, 0.0] + [0.0, 5.0, -7.0, 3.0]
    noise = ImpulseNoise(fraction=0.4, amount=1.0, random_state=0)
    result = noise.fit_transform(X)[noise.corrupted_]
    np.testing.assert_array_equal(noise.data_min_, X.min(axis=0))
    np.testing.assert_array_equal(noise.data_max_, X.max(axis=0))
    assert ((result == X.min(axis=0)) | (result == X.max(axis=0))).all()
    assert len(np.unique(result[:, 0])) == 2


def test_a_given_range_reaches_pixels_that_never_change():
    images = np.zeros((10, 1, 4, 4), dtype=np.float32)
    own = ImpulseNoise(fraction=0.4, random_state=0).fit_transform(images)
    noise = ImpulseNoise(fraction=0.4, amount=1.0, value_range=(0, 1), random_state=0)
    given_range = noise.fit_transform(images)
    assert not own.any()
    assert given_range[noise.corrupted_].mean() == pytest.approx(0.5, abs=0.2)
    assert given_range.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_images(kind, rng):
    images = rng.random((20, 3, 8, 6)).astype(np.float32)
    corruption = kind(fraction=0.25, random_state=1)
    result = corruption.fit_transform(images)
    assert result.shape == images.shape
    changed = (result != images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, corruption.corrupted_)
    assert changed.sum() == 5
    np.testing.assert_array_equal(corruption.transform(images[:7]), images[:7])
    with pytest.raises(ValueError, match=r"X must have rows of shape \(3, 8, 6\), as in fit; found \(3, 6, 8\)"):
        corruption.transform(images.transpose(0, 1, 3, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_fit_and_transform_leave_rows_alone(kind, rng):
    X = rng.normal(size=(30, 4))
    corruption = kind(fraction=0.4, random_state=0)
    corruption.fit_transform(X)
    corruption.fit(X)
    assert not corruption.corrupted_.any()
    np.testing.assert_array_equal(corruption.transform(X), X)


def test_a_pipeline_trains_on_corrupt_rows_and_predicts_on_clean_ones(rng):
    X = rng.normal(size=(80, 3))
    y = X @ [1.0, -2.0, 0.5]
    noise = GaussianNoise(fraction=0.3, std=50.0, random_state=0)
    pipeline = make_pipeline(noise, Ridge(alpha=1e-6)).fit(X, y)
    expected = Ridge(alpha=1e-6).fit(clone(noise).fit_transform(X), y)
    np.testing.assert_array_equal(pipeline.predict(X), expected.predict(X))
    assert pipeline.score(X, y) < 0.5
    search = GridSearchCV(pipeline, {"gaussiannoise__fraction": [0.4, 0.0]}, cv=3).fit(X, y)
    assert search.best_params_ == {"gaussiannoise__fraction": 0.0}
    assert search.best_score_ > 0.999


def test_names_and_frames(rng):
    frame = pd.DataFrame(rng.normal(size=(12, 2)), columns=["height", "width"])
    noise = GaussianNoise(fraction=0.25, random_state=0).set_output(transform="pandas")
    result = noise.fit_transform(frame)
    assert list(result.columns) == ["height", "width"]
    assert list(noise.get_feature_names_out()) == ["height", "width"]
    pd.testing.assert_frame_equal(result[~noise.corrupted_], frame[~noise.corrupted_])


@pytest.mark.parametrize("kind", KINDS)
def test_sources_of_randomness(kind, rng):
    X = rng.normal(size=(40, 3))
    assert (kind(fraction=0.4).fit_transform(X) != kind(fraction=0.4).fit_transform(X)).any()
    shared = kind(fraction=0.4, random_state=np.random.RandomState(0))
    assert (shared.fit_transform(X) != shared.fit_transform(X)).any()
    generators = [kind(fraction=0.4, random_state=np.random.default_rng(3)).fit_transform(X) for _ in range(2)]
    np.testing.assert_array_equal(*generators)
    with pytest.raises(ValueError, match="random_state must be an integer from 0"):
        kind(random_state="now").fit_transform(X)


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_rows_is_hopeless(kind, rng):
    X = rng.normal(size=(10, 3))
    with pytest.warns(UserWarning, match=r"No rule withstands fraction=0\.5.*breakdown point") as caught:
        kind(fraction=0.5, random_state=0).fit_transform(X)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(fraction=0.49, random_state=0).fit_transform(X)


@pytest.mark.parametrize(
    ("corruption", "kind", "message"),
    [
        (GaussianNoise(fraction=1.1), ValueError, r"fraction must be at least 0 and at most 1; found 1\.1"),
        (GaussianNoise(fraction=-0.1), ValueError, "fraction must be at least 0"),
        (GaussianNoise(fraction=np.nan), ValueError, "fraction must be at least 0"),
        (GaussianNoise(fraction="some"), TypeError, "fraction must be a number; found 'some'"),
        (GaussianNoise(fraction=True), TypeError, "fraction must be a number"),
        (GaussianNoise(std=0), ValueError, "std must be greater than 0"),
        (GaussianNoise(std=np.inf), ValueError, "std must be greater than 0"),
        (ImpulseNoise(amount=1.5), ValueError, "amount must be at least 0 and at most 1"),
        (ImpulseNoise(value_range=(1, 0)), ValueError, "value_range must be None or two finite numbers"),
        (ImpulseNoise(value_range=(0, 1, 2)), ValueError, "value_range must be None or two finite numbers"),
        (ImpulseNoise(value_range=(0, np.inf)), ValueError, "value_range must be None or two finite numbers"),
    ],
)
def test_parameters_are_checked_in_fit(corruption, kind, message):
    for fit in (corruption.fit, corruption.fit_transform):
        with pytest.raises(kind, match=message):
            fit(np.eye(4))


def test_a_corruption_of_ones_own():
    class Doubled(FeatureCorruption):
        def __init__(self, fraction=0.25, random_state=None):
            self.fraction, self.random_state = fraction, random_state

        def _check_parameters(self):
            pass

        def _corrupt(self, rows, rng):
            return 2.0 * rows

    doubled = Doubled(random_state=0)
    result = doubled.fit_transform(np.ones((8, 2)))
    np.testing.assert_array_equal(result[:, 0], np.where(doubled.corrupted_, 2.0, 1.0))
    assert doubled.corrupted_.sum() == 2


@pytest.mark.parametrize("corruption", [GaussianNoise(0.25, random_state=0), ImpulseNoise(0.25, random_state=0)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "Int64"])
def test_frames_keep_names_and_index(corruption, dtype):
    X = pd.DataFrame(np.arange(24).reshape(8, 3), columns=list("abc"), index=range(5, 13)).astype(dtype)
    noise = clone(corruption)
    plain = noise.fit_transform(X)
    assert isinstance(plain, np.ndarray)
    assert noise.get_feature_names_out().tolist() == list("abc")
    framed = clone(corruption).set_output(transform="pandas")
    for found in (framed.fit_transform(X), framed.transform(X)):
        assert found.columns.tolist() == list("abc")
        assert found.index.equals(X.index)
        assert set(found.dtypes) == {np.dtype("float32" if dtype == "float32" else "float64")}
    np.testing.assert_array_equal(framed.fit_transform(X).to_numpy(), plain)
    with pytest.raises(ValueError, match="feature names"):
        framed.transform(X[["b", "a", "c"]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_with_a_gradient_are_data(kind, dtype, rng):
    X = torch.tensor(rng.normal(size=(20, 3)), dtype=dtype, requires_grad=True)
    plain = X.detach().to(torch.float32 if dtype == torch.bfloat16 else dtype).numpy()
    noise, other = kind(fraction=0.3, random_state=0), kind(fraction=0.3, random_state=0)
    np.testing.assert_array_equal(noise.fit_transform(X), other.fit_transform(plain))
    np.testing.assert_array_equal(noise.transform(X), plain)
    with pytest.raises(TypeError, match="Sparse data was passed for X"):
        kind().fit(X.detach().to_sparse())


@pytest.mark.parametrize("given", ["a", ("a", "b"), (1,), (2, 1), (0, np.inf), 3, [[0, 1]]], ids=str)
def test_ranges_that_are_none(given):
    with pytest.raises(ValueError, match="value_range must be None or two finite numbers in ascending order; found"):
        ImpulseNoise(value_range=given).fit(np.ones((4, 2)))


@pytest.mark.parametrize(
    ("corruption", "message"),
    [
        (GaussianNoise(0.4, std=1e39), "std must leave X finite, which is float32; found 1e[+]39"),
        (ImpulseNoise(0.4, value_range=(0, 1e39)), "value_range must be finite in X's dtype float32"),
    ],
)
def test_noise_beyond_a_dtype_is_refused(corruption, message):
    with pytest.raises(ValueError, match=message):
        corruption.fit_transform(np.ones((8, 3), dtype=np.float32))
    assert np.isfinite(corruption.fit_transform(np.ones((8, 3)))).all()
