"""Margins, and folds for out-of-fold errors."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from skspurious.functional import balanced_subset
from skspurious.functional._error_set import class_margins, stratified_folds


def test_margins_by_hand():
    logits = torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [3.0, 3.0, 0.0]])
    assert class_margins(logits, torch.tensor([1, 0, 0])).tolist() == [2.0, -3.0, 0.0]


def test_margins_are_negative_where_the_class_is_missed():
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4)))
    y = torch.arange(50) % 4
    assert torch.equal(class_margins(logits, y) < 0, logits.argmax(1) != y)


@pytest.mark.parametrize("n_folds", [2, 3, 7])
def test_folds_share_every_stratum(n_folds):
    strata = np.repeat(["a", "b", "c"], [20, 9, 2])
    fold = stratified_folds(strata, n_folds, np.random.default_rng(0))
    assert np.ptp(np.bincount(fold, minlength=n_folds)) <= 1
    for stratum in ("a", "b", "c"):
        assert np.ptp(np.bincount(fold[strata == stratum], minlength=n_folds)) <= 1


def test_folds_follow_the_generator():
    def make(seed):
        return stratified_folds(np.zeros(30), 3, np.random.default_rng(seed))

    assert_array_equal(make(0), make(0))
    assert not np.array_equal(make(0), make(1))


def test_balanced_subset_takes_lists():
    assert len(balanced_subset([0, 0, 1], np.random.default_rng(0))) == 2
