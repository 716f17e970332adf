"""The same numbers give the same groups: layout, container and type change nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    SemiSupervisedGroupInferrer,
    SpuriousGroupInferrer,
)
from skspurious.functional._clustering import kmeans_centers
from skspurious.functional._rows import squared_norm
from skspurious.group_inference import (
    DispersionGroups,
    EIILGroups,
    ErrorGroups,
    GaussianMixtureGroups,
    KMeansGroups,
    SpareGroups,
    ViewJury,
    XRMGroups,
    suggest_annotations,
)

RNG = np.random.default_rng(0)
N, D = 60, 33
Y = np.arange(N) % 2
GROUP = (np.arange(N) // 2) % 2 + 2 * Y
X = RNG.normal(size=(N, D)).astype(np.float32) + 3 * GROUP[:, None] % 2 + Y[:, None]

SAME = {
    "Fortran order": np.asfortranarray,
    "transposed": lambda X: X.T.copy().T,
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "float64": lambda X: X.astype(np.float64),
    "frame": pd.DataFrame,
    "float64 frame": lambda X: pd.DataFrame(X.astype(np.float64)),
    "tensor": torch.tensor,
    "transposed tensor": lambda X: torch.tensor(X.T.copy()).T,
    "float64 tensor": lambda X: torch.tensor(X).double(),
    "list": lambda X: X.tolist(),
}
all_kinds = pytest.mark.parametrize("kind", SAME)
INFERRERS = {
    "kmeans": SpuriousGroupInferrer(KMeansGroups(), random_state=0),
    "global": SpuriousGroupInferrer(KMeansGroups(), scope="global", random_state=0),
    "gmm": SpuriousGroupInferrer(GaussianMixtureGroups(), random_state=0),
    "spare": SpuriousGroupInferrer(SpareGroups(), random_state=0),
    "dispersion": SpuriousGroupInferrer(DispersionGroups(), random_state=0),
    "error": SpuriousGroupInferrer(ErrorGroups(), random_state=0),
    "eiil": SpuriousGroupInferrer(EIILGroups(), random_state=0),
    "xrm": SpuriousGroupInferrer(XRMGroups(), random_state=0),
}


@pytest.mark.parametrize("kind", ["Fortran order", "float64 frame", "transposed tensor"])
@pytest.mark.parametrize("name", INFERRERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_inferrers(name, kind):
    inferrer, Z = INFERRERS[name], SAME[kind](X)
    labels = inferrer.fit(X, Y).labels_
    probability = inferrer.predict_proba(X, Y)
    assert_array_equal(inferrer.fit(Z, Y).labels_, labels)
    assert_array_equal(inferrer.predict_proba(Z, Y), probability)


@all_kinds
def test_semi_supervised_groups(kind):
    attribute = np.where(np.arange(N) < 30, GROUP % 2, None)
    inferrer, Z = SemiSupervisedGroupInferrer(random_state=0), SAME[kind](X)
    labels = inferrer.fit(X, Y, sample_attribute=attribute).labels_
    probability = inferrer.predict_proba(X, Y)
    assert_array_equal(inferrer.fit(Z, Y, sample_attribute=attribute).labels_, labels)
    assert_array_equal(inferrer.predict_proba(Z, Y), probability)
    rows = suggest_annotations(X, Y, k=5, sample_attribute=attribute, random_state=0)
    again = suggest_annotations(Z, Y, k=5, sample_attribute=attribute, random_state=0)
    assert_array_equal(again, rows)


@all_kinds
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_jury_of_named_views(kind):
    views = {"first": slice(0, 12), "second": slice(12, D)}
    jury, Z = ViewJury(views, random_state=0), SAME[kind](X)
    labels = jury.fit(X, Y).labels_
    predicted = jury.predict(X, Y)
    assert_array_equal(jury.fit(Z, Y).labels_, labels)
    assert_array_equal(jury.predict(Z, Y), predicted)


@pytest.mark.parametrize("kind", ["Fortran order", "float64 frame", "transposed tensor"])
@pytest.mark.parametrize(
    "head",
    [
        ERMClassifier(random_state=0),
        GroupDROClassifier(random_state=0),
        LastLayerRetrainer(random_state=0),
        NSFClassifier(random_state=0, max_epochs=2),
    ],
    ids=lambda head: type(head).__name__,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_heads(head, kind):
    Z = SAME[kind](X)
    groups = {} if isinstance(head, NSFClassifier) else {"sample_group": GROUP}
    expected = head.fit(X, Y, **groups).predict_proba(X)
    assert_array_equal(head.fit(Z, Y, **groups).predict_proba(Z), expected)


@pytest.mark.parametrize("kind", ["Fortran order", "transposed", "strided"])
def test_clusterings(kind):
    Z = SAME[kind](X)
    assert_array_equal(kmeans_centers(Z, 3, random_state=0), kmeans_centers(X, 3, random_state=0))
    assert_array_equal(squared_norm(Z), squared_norm(X))


def test_numbers_that_float32_cannot_hold_keep_their_type():
    """Two clusters that differ by less than float32 tells apart, far from zero."""
    far = 1e6 + np.where(np.arange(N) % 4 < 2, 0.0, 0.01)[:, None] + RNG.normal(0, 1e-4, (N, 2))
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2), normalize=False, random_state=0)
    assert inferrer.fit(far, Y)._dtype == np.float64
    for rows in (far[:1], np.round(far[:1])):  # whatever float32 could hold of a part
        assert inferrer._check_samples(rows).dtype == np.float64
