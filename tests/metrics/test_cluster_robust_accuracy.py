"""cluster_robust_accuracy: the worst cluster."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious import GroupDROClassifier, SpuriousGroupInferrer
from skspurious.metrics import cluster_robust_accuracy, worst_group_accuracy


def make_data(n_samples=400, seed=0):
    """A rare part of class 0 lies where class 1 is, and apart in a second feature."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    rare = (y == 0) & (np.arange(n_samples) % 20 == 0)
    X = np.stack([np.where(rare, 1, 2 * y - 1), 5.0 * rare], axis=1) * 2.0
    return X + rng.normal(scale=0.2, size=X.shape), y, rare


def test_cluster_robust_accuracy_by_hand():
    y_true, y_pred, cluster = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], ["a", "b", "b", "c", "c", "d"]
    assert cluster_robust_accuracy(y_true, y_pred, cluster=cluster) == 0.5
    cluster = [0, 1, 2, 3, 3, 3]  # the missed sample is a cluster of its own
    assert cluster_robust_accuracy(y_true, y_pred, cluster=cluster) == 0.0
    assert cluster_robust_accuracy(y_true, y_pred, cluster=cluster, min_size=2) == 1.0


@pytest.mark.fidelity
def test_cluster_robust_accuracy_is_nearer_to_the_worst_group_than_the_accuracy():
    X, y, rare = make_data()
    inferrer = make_pipeline(StandardScaler(), SpuriousGroupInferrer("spare", random_state=0)).fit(
        X, y
    )
    X_test, y_test, rare_test = make_data(seed=1)
    classifier = LogisticRegression().fit(X[~rare][:, :1], y[~rare])
    predicted = classifier.predict(X_test[:, :1])
    robust = cluster_robust_accuracy(y_test, predicted, cluster=inferrer, X=X_test)
    true = worst_group_accuracy(y_test, predicted, sample_group=2 * y_test + rare_test)
    assert (predicted == y_test).mean() > 0.9
    assert robust == true == 0.0


def test_cluster_robust_accuracy_takes_whatever_infers_groups():
    X, y, _ = make_data()
    clf = GroupDROClassifier(
        group_inferrer=SpuriousGroupInferrer("spare"), max_epochs=2, random_state=0
    ).fit(X, y)
    predicted = clf.predict(X)
    expected = worst_group_accuracy(y, predicted, sample_group=clf.infer_groups(X, y))
    assert cluster_robust_accuracy(y, predicted, cluster=clf, X=X) == expected
    inferrer = clf.group_inferrer_
    assert cluster_robust_accuracy(y, predicted, cluster=inferrer, X=X) == expected


def test_cluster_robust_accuracy_names_what_is_wrong():
    X, y, _ = make_data(40)
    inferrer = SpuriousGroupInferrer("spare", random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="cluster is a SpuriousGroupInferrer: give X="):
        cluster_robust_accuracy(y, y, cluster=inferrer)
    plain = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="LogisticRegression that infers no groups"):
        cluster_robust_accuracy(y, y, cluster=plain, X=X)
    with pytest.raises(ValueError, match="no cluster has min_size=50"):
        cluster_robust_accuracy(y, y, cluster=y, min_size=50)
    with pytest.raises(ValueError, match="cluster has 39 rows for 40 samples"):
        cluster_robust_accuracy(y, y, cluster=y[1:])
