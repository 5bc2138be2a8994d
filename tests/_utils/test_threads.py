"""One thread for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skbgmd import geometric_median
from skbgmd._utils.threads import one_thread, one_thread_of_products
from skbgmd.aggregators import AGGREGATORS, get_aggregator
from skbgmd.location.spaces import EuclideanSpace, ExpandedSpace
from skbgmd.rows import DenseRows


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def test_threads_are_as_many_as_before(threads: int) -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads


def test_they_are_after_an_error(threads: int) -> None:
    with pytest.raises(RuntimeError, match="stop"), one_thread():
        raise RuntimeError("stop")
    assert torch.get_num_threads() == threads


def threads_of_products() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_products_take_one_thread_for_a_while() -> None:
    with threadpool_limits(2, user_api="blas"):
        with one_thread_of_products():
            assert threads_of_products() == {1}
            # Where there is one already, nothing is changed.
            with one_thread_of_products():
                assert threads_of_products() == {1}
            assert threads_of_products() == {1}
        assert threads_of_products() == {2}


def test_a_function_of_products_takes_one_thread_for_each_call() -> None:
    @one_thread_of_products()
    def used() -> set[int]:
        return threads_of_products()

    with threadpool_limits(2, user_api="blas"):
        assert used() == used() == {1}
        assert threads_of_products() == {2}


def test_they_are_as_many_as_before_after_an_error() -> None:
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(RuntimeError, match="stop"), one_thread_of_products():
            raise RuntimeError("stop")
        assert threads_of_products() == {2}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_rules_take_eigenvectors_by_one_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among several they wait until torch's threads sleep, for milliseconds."""
    used: set[int] = set()

    def watched(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            used.update(threads_of_products())
            return function(*args, **kwargs)

        return call

    for function in ("eigh", "svd"):
        monkeypatch.setattr(np.linalg, function, watched(getattr(np.linalg, function)))
    rows = DenseRows(torch.randn(34, 50, generator=torch.Generator().manual_seed(0)))
    with threadpool_limits(2, user_api="blas"):
        get_aggregator(name)(rows)
    assert used <= {1}
    if "spectral" in name or name == "worker_memory":
        assert used


@pytest.mark.parametrize(("space", "shape"), [(EuclideanSpace, (3000, 20)), (ExpandedSpace, (400, 200))])
def test_medians_in_the_columns_take_one_thread_for_products(
    space: Any, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside torch's norms, block after block, several took twenty times as long."""
    used: set[int] = set()
    at = space.at
    monkeypatch.setattr(space, "at", lambda self, *given: used.update(threads_of_products()) or at(self, *given))
    with threadpool_limits(2, user_api="blas"):
        geometric_median(np.random.default_rng(0).normal(size=shape))
        assert threads_of_products() == {2}
    assert used == {1}
