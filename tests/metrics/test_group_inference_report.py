import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import adjusted_rand_score, f1_score, precision_score, recall_score

from skspurious.metrics import group_inference_report


def test_group_inference_report_by_hand():
    # Class 0: field 6 = 5 in cluster 1 and 1 in cluster 0, lake 2 in cluster 0.
    # Purity (5 + 2) / 8; cluster 0 against lake: precision 2/3, recall 1, F1 4/5.
    # Class 1: field 1, lake 3, all in cluster 5: purity 3/4; precision 1/4, recall 1, F1 2/5.
    true = ["field"] * 6 + ["lake"] * 2 + ["field"] + ["lake"] * 3
    report = group_inference_report(true, [1] * 5 + [0] * 3 + [5] * 4, [0] * 8 + [1] * 4)
    assert report.index.tolist() == [0, 1]
    assert report["n"].tolist() == [8, 4]
    assert report["n_groups"].tolist() == [2, 2]
    assert report["n_clusters"].tolist() == [2, 1]
    assert report["minority_group"].tolist() == ["lake", "field"]
    assert report["minority_n"].tolist() == [2, 1]
    assert report["matched_cluster"].tolist() == [0, 5]
    assert_allclose(report["purity"], [7 / 8, 3 / 4])
    assert_allclose(report["precision"], [2 / 3, 1 / 4])
    assert_allclose(report["recall"], [1, 1])
    assert_allclose(report["f1"], [0.8, 0.4])
    assert report.attrs["purity"] == pytest.approx(10 / 12)


def test_group_inference_report_equals_scikit_learn_on_masks():
    rng = np.random.default_rng(0)
    y, true, cluster = rng.integers(0, 2, 200), rng.choice(3, 200, p=[0.7, 0.2, 0.1]), None
    cluster = np.where(rng.random(200) < 0.7, true, rng.integers(0, 4, 200))
    report = group_inference_report(true, cluster, y)
    for c in (0, 1):
        t, k = true[y == c], cluster[y == c]
        row = report.loc[c]
        assert row["ari"] == adjusted_rand_score(t, k)
        minority = np.bincount(t).argmin()
        assert row["minority_group"] == minority
        scores = [f1_score(t == minority, k == j) for j in range(4)]
        assert row["matched_cluster"] == np.argmax(scores)
        assert row["f1"] == pytest.approx(max(scores))
        hit = k == np.argmax(scores)
        assert row["precision"] == pytest.approx(precision_score(t == minority, hit))
        assert row["recall"] == pytest.approx(recall_score(t == minority, hit))
    assert report.attrs["ari"] == adjusted_rand_score(10 * y + true, 10 * y + cluster)


def test_group_inference_report_does_not_depend_on_the_names_of_clusters():
    rng = np.random.default_rng(0)
    y, true, cluster = rng.integers(0, 2, (3, 100))
    # In class 1 the two cluster numbers are swapped.
    swapped = np.where(y == 1, 1 - cluster, cluster)
    columns = ["n", "ari", "purity", "minority_n", "precision", "recall", "f1"]
    report = group_inference_report(true, cluster, y)[columns]
    assert_allclose(group_inference_report(true, swapped, y)[columns], report)
    named = np.array(["left", "right"])[cluster]
    assert_allclose(group_inference_report(true, named, y)[columns], report)


def test_group_inference_report_of_perfect_groups_with_other_names():
    y, attribute = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0])
    report = group_inference_report(2 * y + attribute, 10 - attribute, y)
    assert (report[["ari", "purity", "precision", "recall", "f1"]] == 1).all(axis=None)
    assert report.attrs == {"ari": 1, "purity": 1}


def test_group_inference_report_of_a_class_with_one_group_has_no_minority():
    report = group_inference_report([0, 0, 1, 2], [0, 1, 0, 0], ["a", "a", "b", "b"])
    missing = ["minority_group", "minority_n", "matched_cluster", "precision", "recall", "f1"]
    assert report.loc["a", missing].isna().all()
    assert report.loc["b", missing].notna().all()
    assert report.loc["a", "purity"] == 1


def test_group_inference_report_takes_one_sample():
    report = group_inference_report([3], ["x"], [0])
    assert report.loc[0, "n"] == 1
    assert report.loc[0, "ari"] == 1


def test_group_inference_report_compares_lengths():
    with pytest.raises(ValueError, match="sample_group_inferred has 1 rows for 2 samples"):
        group_inference_report([0, 1], [0], [0, 0])
    with pytest.raises(ValueError, match="sample_group_true has 3 rows for 2 samples"):
        group_inference_report([0, 1, 1], [0, 1], [0, 0])


def test_report_of_many_groups_is_made_from_what_occurs():
    """A table of all pairs of 10^5 groups and 10^5 clusters would take 75 GiB."""
    n = 100_000
    y = np.arange(2 * n) % 2
    true, inferred = np.arange(2 * n) // 2, np.arange(2 * n)[::-1] // 2
    inferred[:4] = inferred[0]  # two samples of each class, of two groups each, in one cluster
    report = group_inference_report(true, inferred, y)
    assert report["n_groups"].tolist() == [n, n]
    assert report["n_clusters"].tolist() == [n - 1, n - 1]
    assert report["purity"].tolist() == [(n - 1) / n] * 2
    assert report["minority_n"].tolist() == [1, 1]
    assert report["recall"].tolist() == [1.0, 1.0]


def test_report_equals_one_from_the_full_table():
    rng = np.random.default_rng(0)
    y, true, inferred = (
        rng.integers(3, size=400),
        rng.integers(5, size=400),
        rng.integers(7, size=400),
    )
    report = group_inference_report(true * 2, inferred + 3, y)
    for c in range(3):
        table = np.zeros((5, 7))
        np.add.at(table, (true[y == c], inferred[y == c]), 1)
        assert report["purity"][c] == table.max(axis=0).sum() / table.sum()
        minority = table.sum(axis=1).argmin()
        f1 = 2 * table[minority] / (table[minority].sum() + table.sum(axis=0))
        assert report["minority_group"][c] == 2 * minority
        assert report["f1"][c] == f1.max()
        best = report["matched_cluster"][c] - 3
        assert f1[best] == f1.max()
        assert report["precision"][c] == table[minority, best] / table[:, best].sum()
