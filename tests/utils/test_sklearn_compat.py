"""The one file that touches private scikit-learn names has what the rest imports from it."""

import numpy as np
import pytest

from skspurious.utils import _sklearn_compat


def test_sklearn_compat_all_is_complete_and_importable():
    names = set(_sklearn_compat.__all__)
    assert all(hasattr(_sklearn_compat, name) for name in names)
    assert names == {name for name in vars(_sklearn_compat) if not name.startswith("__")}


def test_sklearn_compat_checks_weights_and_labels():
    weight = _sklearn_compat._check_sample_weight(
        [1, 2], np.zeros(2), dtype=np.float32, ensure_non_negative=True
    )
    assert weight.dtype == np.float32
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        _sklearn_compat._check_sample_weight([1, -2], np.zeros(2), ensure_non_negative=True)
    np.testing.assert_array_equal(_sklearn_compat._check_y(["b", "a"]), ["b", "a"])
