"""One thread for a while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skbgmd._utils.threads import one_thread, one_thread_of_products


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
