"""What fit takes and leaves: rows of X, validation samples, carried groups, failures."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious import (
    AFRClassifier,
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    JTTClassifier,
    LastLayerRetrainer,
    LfFClassifier,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SELFClassifier,
    SpuriousGroupInferrer,
)
from skspurious.callbacks import Callback
from skspurious.datasets import make_spurious_classification
from skspurious.metrics import worst_group_accuracy

N = 200
FAST = {"max_epochs": 2, "lr": 0.05, "batch_size": 32, "random_state": 0}
ASIDE = {"early_stopping": True, "validation_fraction": 0.2}


@pytest.fixture(scope="module")
def data():
    """A shortcut and few samples that it misleads; the last feature is the row."""
    bunch = make_spurious_classification(N, correlation_strength=0.85, random_state=0)
    X = np.column_stack([bunch.data, np.arange(N)]).astype(np.float32)
    for array in (X, bunch.target, bunch.sample_group):
        array.flags.writeable = False
    return X, bunch.target, bunch.sample_group


class Net(nn.Module):
    """Does not look at the last feature."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.hidden(x[:, :8]).relu())


METHODS = {
    "ERM": ERMClassifier(Net, **FAST, **ASIDE),
    "GroupDRO": GroupDROClassifier(Net, **FAST, **ASIDE),
    "balanced": BalancedRetrainer(Net, **FAST, **ASIDE),
    "subsampling": BalancedRetrainer(Net, balance="subsampling", **FAST, **ASIDE),
    "JTT": JTTClassifier(Net, init_epochs=2, **FAST, **ASIDE),
    "AFR": AFRClassifier(Net, gamma=2.0, **FAST, **ASIDE),
    "SELF": SELFClassifier(Net, n_selected=20, **FAST, **ASIDE),
    "LfF": LfFClassifier(Net, **FAST, **ASIDE),
    "DFR": LastLayerRetrainer(Net, n_draws=3, C=0.5, **FAST, **ASIDE),
    "NSF": NSFClassifier(
        Net, transform_steps=20, head_steps=20, nsf_lr=0.01, reg_weight=0.5, **FAST, **ASIDE
    ),
    "NSF on a part": NSFClassifier(
        Net,
        identify_on=0.3,
        transform_steps=20,
        head_steps=20,
        nsf_lr=0.01,
        reg_weight=0.5,
        **FAST,
        **ASIDE,
    ),
    "pruned": PrunedRetrainer(Net, score_epochs=1, prune_fraction=0.2, **FAST, **ASIDE),
    "PruSC": PruSCNetwork(
        Net,
        n_clusters=4,
        mask_lr=0.1,
        mask_steps=30,
        balanced_set="cell",
        fine_tune_epochs=1,
        **FAST,
        **ASIDE,
    ),
}


def fit(clf, X, y, **params):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(sparsity 0|no sample was rescued|error set is)")
        return copy.copy(clf).fit(X, y, **params)


def parameters_of(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()])


# --------------------------------------------------------------------------------------
# Rows


class Rows:
    """A batch transform that remembers the rows it sees."""

    def __init__(self):
        self.seen = set()

    def __call__(self, batch):
        self.seen |= set(batch[:, -1].long().tolist())
        return batch


@pytest.mark.parametrize("name", METHODS)
def test_rows_that_were_trained_on_and_kept_aside_are_disjoint_and_make_up_X(data, name):
    X, y, group = data
    trained, looked_at = Rows(), Rows()
    clf = METHODS[name]
    clf = clf.__class__(
        **clf.get_params(deep=False) | {"train_transform": trained, "eval_transform": looked_at}
    )
    clf = fit(clf, X, y, sample_group=group)
    train, aside = clf.train_indices_, clf.validation_indices_
    assert_array_equal(np.sort(np.r_[train, aside]), np.arange(N))
    assert_array_equal(train, np.sort(train))
    assert_array_equal(aside, np.sort(aside))
    assert 0.15 * N < len(aside) < 0.25 * N
    assert trained.seen <= set(train.tolist())
    assert set(aside.tolist()) <= looked_at.seen  # and nothing was trained on them
    if name in ("ERM", "JTT"):
        assert trained.seen == set(train.tolist()) or name == "JTT"


@pytest.mark.parametrize(
    "name", ["ERM", "GroupDRO", "balanced", "JTT", "AFR", "LfF", "DFR", "pruned"]
)
def test_a_fit_on_just_these_rows_gives_the_same_network(data, name):
    X, y, group = data
    clf = fit(METHODS[name], X, y, sample_group=group)
    train, aside = clf.train_indices_, clf.validation_indices_
    params = {"early_stopping": True}
    if name == "DFR":
        params["retrain_on"] = "train"
    again = copy.copy(METHODS[name]).set_params(**params)
    again = fit(
        again,
        X[train],
        y[train],
        sample_group=group[train],
        X_val=X[aside],
        y_val=y[aside],
        sample_group_val=group[aside],
    )
    assert torch.equal(parameters_of(again), parameters_of(clf))
    assert again.best_epoch_ == clf.best_epoch_
    drop = ["seconds"]
    assert again.history_.drop(columns=drop).equals(clf.history_.drop(columns=drop))
    assert_array_equal(again.train_indices_, np.arange(len(train)))
    assert again.validation_indices_.shape == (0,)


@pytest.mark.parametrize("is_validated", [False, True])
def test_without_a_part_kept_aside_all_rows_are_trained_on(data, is_validated):
    X, y, _ = data
    given = {"X_val": X[:50], "y_val": y[:50]} if is_validated else {}
    clf = ERMClassifier(Net, **FAST, early_stopping=is_validated).fit(X, y, **given)
    assert_array_equal(clf.train_indices_, np.arange(N))
    assert clf.validation_indices_.shape == (0,)
    assert clf.validation_indices_.dtype.kind == "i"


def test_the_part_that_is_kept_aside_is_stratified_by_class_and_group(data):
    X, y, group = data
    clf = fit(METHODS["ERM"], X, y, sample_group=group)
    share = np.bincount(group[clf.validation_indices_]) / np.bincount(group)
    assert_allclose(share, 0.2, atol=0.07)
    by_class = fit(METHODS["PruSC"], X, y, sample_group=group)  # which must not use the groups
    without = fit(METHODS["PruSC"], X, y)
    assert_array_equal(by_class.validation_indices_, without.validation_indices_)


def test_subset_of_the_retrainer_is_of_rows_of_X(data):
    X, y, group = data
    rows = Rows()
    clf = copy.copy(METHODS["subsampling"]).set_params(train_transform=rows)
    clf = fit(clf, X, y, sample_group=group)
    assert set(clf.subset_.tolist()) == rows.seen
    assert not np.isin(clf.subset_, clf.validation_indices_).any()
    counts = np.bincount(group[clf.subset_])
    assert (counts == np.bincount(group[clf.train_indices_]).min()).all()


def test_masks_of_nsf_are_of_rows_of_X(data):
    X, y, group = data
    for name in ("NSF", "NSF on a part"):
        clf = fit(METHODS[name], X, y, sample_group=group)
        rows = clf.identify_indices_
        assert np.isin(rows, clf.train_indices_).all()
        if name == "NSF":
            assert_array_equal(rows, clf.train_indices_)
        else:
            assert 0.25 < len(rows) / len(clf.train_indices_) < 0.35
        unseen = np.setdiff1d(np.arange(N), rows)
        for mask in (clf.outlier_mask_, clf.easy_mask_, clf.rescued_mask_):
            assert mask.shape == (N,)
            assert not mask[unseen].any()
        assert_array_equal(clf.easy_mask_[rows], ~clf.outlier_mask_[rows])
        # by hand, from the embedding of these very rows
        with torch.no_grad():
            Z = clf.module_.hidden(torch.tensor(X[:, :8])).relu().double().numpy()
        means = np.stack([Z[rows[y[rows] == k]].mean(0) for k in (0, 1)])
        assert_allclose(clf.class_means_, means, rtol=1e-4, atol=1e-5)
        nearest = ((Z[rows, None] - means) ** 2).sum(2).argmin(1)
        assert_array_equal(clf.outlier_mask_[rows], nearest != y[rows])
        assert_array_equal(clf.outlier_counts_, np.bincount(y[clf.outlier_mask_], minlength=2))


def test_clusters_and_balanced_set_of_prusc_are_of_rows_of_X(data):
    X, y, _ = data
    rows = Rows()
    clf = copy.copy(METHODS["PruSC"]).set_params(max_epochs=2)
    clf = fit(clf, X, y)
    train, aside = clf.train_indices_, clf.validation_indices_
    assert clf.clusters_.shape == (N,)
    assert_array_equal(np.flatnonzero(clf.clusters_ == -1), aside)
    table = [
        [np.sum((clf.clusters_ == c) & (y == k)) for k in (0, 1)]
        for c in range(clf.clusters_.max() + 1)
    ]
    assert_array_equal(clf.cluster_table_, table)
    assert_array_equal(clf.infer_groups(X[train], y[train]), clf.group_inferrer_.labels_)
    assert np.isin(clf.balanced_indices_, train).all()
    cell = 2 * clf.clusters_[clf.balanced_indices_] + y[clf.balanced_indices_]
    assert len(set(np.unique(cell, return_counts=True)[1])) == 1  # of every cell as many
    # fine-tuning, the one stage left where nothing else is trained, sees these rows
    tuned = copy.copy(METHODS["PruSC"]).set_params(
        module=clf.erm_module_, max_epochs=0, mask_epochs=0, mask_steps=0, train_transform=rows
    )
    tuned = fit(tuned, X, y)
    assert rows.seen == set(tuned.balanced_indices_.tolist())


def test_kept_and_pruned_rows_are_of_X(data):
    X, y, group = data
    rows = Rows()
    clf = copy.copy(METHODS["pruned"])
    clf = fit(clf, X, y, sample_group=group)
    kept, pruned, aside = clf.kept_indices_, clf.pruned_indices_, clf.validation_indices_
    assert_array_equal(np.sort(np.r_[kept, pruned, aside]), np.arange(N))
    assert clf.n_pruned_ == len(pruned) > 0
    assert clf.pruner_.scores_.shape == clf.pruner_.keep_mask_.shape == (N,)
    assert clf.pruner_.run_scores_.shape == (1, N)
    assert_array_equal(np.flatnonzero(np.isnan(clf.pruner_.scores_)), aside)
    assert_array_equal(np.flatnonzero(clf.pruner_.keep_mask_), kept)
    for k in (0, 1):
        scores = [clf.pruner_.scores_[r[y[r] == k]] for r in (kept, pruned)]
        assert scores[1].min() >= scores[0].max()
    for order in ("hardest", "random"):
        assert not clf.pruner_.select(0.5, order=order)[aside].any()
    again = copy.copy(METHODS["pruned"]).set_params(train_transform=rows, max_epochs=2)
    fit(again, X, y, sample_group=group)
    assert rows.seen == set(clf.train_indices_.tolist())  # the scores' training, too


# --------------------------------------------------------------------------------------
# Groups that X carries, and an inferrer


@pytest.mark.parametrize("method", [GroupDROClassifier, BalancedRetrainer, LastLayerRetrainer])
def test_an_inferrer_is_for_the_fit_and_carried_groups_are_for_the_score(data, method):
    X, y, group = data
    X = X[:, :8]
    inferrer = SpuriousGroupInferrer("dispersion")
    carrying = method(group_inferrer=inferrer, **FAST).fit(GroupedData(X, group), y)
    plain = method(group_inferrer=inferrer, **FAST).fit(X, y)
    assert torch.equal(parameters_of(carrying), parameters_of(plain))
    assert_array_equal(carrying.groups_, plain.groups_)
    assert carrying.used_group_labels_ == {"train": False, "validation": False}
    assert carrying.group_inferrer_ is not None
    predicted = carrying.predict(X)
    expected = worst_group_accuracy(y, predicted, sample_group=group)
    assert carrying.score(GroupedData(X, group), y) == expected
    assert carrying.score(X, y) == np.mean(predicted == y)
    on_labels = method(**FAST).fit(GroupedData(X, group), y)
    assert on_labels.used_group_labels_ == {"train": True, "validation": False}
    assert not torch.equal(parameters_of(on_labels), parameters_of(plain))


def test_groups_that_are_given_come_before_an_inferrer(data):
    X, y, group = data
    X = X[:, :8]
    inferrer = SpuriousGroupInferrer("dispersion")
    given = GroupDROClassifier(group_inferrer=inferrer, **FAST).fit(X, y, sample_group=group)
    plain = GroupDROClassifier(**FAST).fit(X, y, sample_group=group)
    assert torch.equal(parameters_of(given), parameters_of(plain))
    assert given.used_group_labels_["train"]
    assert given.group_inferrer_ is None


def test_groups_of_validation_samples_that_X_val_carries(data):
    X, y, group = data
    X = X[:, :8]
    inferrer = SpuriousGroupInferrer("dispersion")
    clf = ERMClassifier(**FAST)
    carried = copy.deepcopy(clf).fit(X, y, X_val=GroupedData(X, group), y_val=y)
    given = copy.deepcopy(clf).fit(X, y, X_val=X, y_val=y, sample_group_val=group)
    column = "valid_worst_group_accuracy"
    assert_array_equal(carried.history_[column], given.history_[column])
    assert carried.used_group_labels_ == {"train": False, "validation": True}
    # with an inferrer they are inferred, as those of the training samples
    inferred = ERMClassifier(group_inferrer=inferrer, **FAST)
    inferred.fit(X, y, X_val=GroupedData(X, group), y_val=y)
    assert inferred.used_group_labels_ == {"train": False, "validation": False}
    cells = inferred.infer_groups(X, y)
    best = inferred.history_[column][inferred.best_epoch_ - 1]
    assert best == pytest.approx(inferred.score(X, y, sample_group=cells))


# --------------------------------------------------------------------------------------
# Fits that fail


class Fails(Callback):
    def __init__(self, epoch=1):
        self.epoch = epoch

    def on_epoch_end(self, *, row, **kwargs):
        if row["epoch"] == self.epoch:
            raise RuntimeError("the callback fails")


def state_of(clf):
    """Everything that was learned, as bytes."""
    return {k: pickle.dumps(v) for k, v in vars(clf).items() if k not in clf.get_params(False)}


FAILURES = {
    "network diverges": ({"lr": 1e30, "optimizer_params": {"momentum": 0.99}}, ValueError),
    "callback raises": ({"callbacks": [Fails()]}, RuntimeError),
    "callback raises late": ({"callbacks": [Fails(2)]}, RuntimeError),
}


@pytest.mark.parametrize(("params", "error"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("name", METHODS)
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(data, name, params, error):
    X, y, group = data
    unfitted = copy.copy(METHODS[name]).set_params(early_stopping=False)
    clf = fit(unfitted, X, y, sample_group=group)
    before, proba = state_of(clf), clf.predict_proba(X)
    spoilt = X if "callbacks" in params else 1e8 * X
    for one in (unfitted, clf):
        one.set_params(**params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(error):
                one.fit(spoilt, 1 - y, sample_group=group % 2)
    assert vars(unfitted).keys() == unfitted.get_params(deep=False).keys()
    with pytest.raises(NotFittedError):
        unfitted.predict(X)
    assert state_of(clf) == before
    assert_array_equal(clf.predict_proba(X), proba)


def test_a_fit_that_is_refused_leaves_the_estimator_as_it_was(data):
    X, y, group = data
    clf = GroupDROClassifier(**FAST).fit(X, y, sample_group=group)
    before = state_of(clf)
    for refused, message in (
        (lambda: clf.fit(X[:, :4], y), "needs the group of every training sample"),
        (lambda: clf.fit(X[:, :4], y, sample_group=group, X_val=X, y_val=y), "has 9 features"),
        (lambda: clf.fit(X[:, :4], 0 * y, sample_group=group), "y has one class"),
        (lambda: clf.fit(X[:, :4], y, sample_group=group[:5]), "sample_group has 5 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
        assert state_of(clf) == before


# --------------------------------------------------------------------------------------
# Validation samples


def test_validation_samples_are_given_by_three_arguments_that_go_together(data):
    X, y, group = data
    clf = ERMClassifier(**FAST)
    for given, message in (
        ({"X_val": X}, "X_val needs y_val, the class labels of its samples"),
        ({"X_val": X, "sample_group_val": group}, "X_val needs y_val"),
        ({"y_val": y}, "y_val and sample_group_val go with X_val, which is missing"),
        ({"sample_group_val": group}, "go with X_val, which is missing"),
        ({"X_val": X, "y_val": y + 1}, r"y_val has classes that are not in y: \[2\]"),
        ({"X_val": X, "y_val": y[:7]}, "inconsistent numbers of samples"),
        ({"X_val": X[:7], "y_val": y}, "inconsistent numbers of samples"),
        (
            {"X_val": X, "y_val": y, "sample_group_val": group[:7]},
            f"sample_group_val has 7 rows for {N} samples",
        ),
        ({"X_val": X[:, :3], "y_val": y}, "X has 3 features, but ERMClassifier is expecting 9"),
        ({"X_val": np.full_like(X, np.nan), "y_val": y}, "contains NaN"),
        ({"X_val": X[:0], "y_val": y[:0]}, "0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            clf.fit(X, y, **given)
    with pytest.raises(TypeError, match="eval_set"):
        clf.fit(X, y, eval_set=(X, y))


def test_wrong_length_of_groups_that_X_val_carries_cannot_be(data):
    X, _, group = data
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        GroupedData(X, group[:7])


def test_validation_samples_need_not_have_every_class(data):
    X, y, _ = data
    clf = ERMClassifier(Net, **FAST).fit(X, y, X_val=X[y == 1], y_val=y[y == 1])
    best = clf.history_["valid_accuracy"][clf.best_epoch_ - 1]
    assert best == pytest.approx(np.mean(clf.predict(X[y == 1]) == 1))


@pytest.mark.parametrize("name", ["array", "tensor", "frame"])
def test_a_validation_set_that_was_not_scaled_is_a_warning(data, name):
    make = {
        "array": np.asarray,
        "tensor": torch.tensor,
        "frame": lambda Z: pd.DataFrame(Z).rename(columns=str),
    }[name]
    X, y, _ = data
    X = 50 + 10 * X[:, :8]
    scaled = StandardScaler().fit_transform(X).astype(np.float32)
    message = (
        r"more than half of X_val lies outside the range of X in 8 of 8 columns.*make_pipeline"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        ERMClassifier(**FAST).fit(make(scaled), y, X_val=make(X), y_val=y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    ERMClassifier(**FAST).fit(make(scaled), y, X_val=make(scaled[:20]), y_val=y[:20])
    ERMClassifier(**FAST).fit(make(scaled), y, X_val=make(X[:19]), y_val=y[:19])  # too few to tell
    with pytest.warns(UserWarning, match="more than half of X_val lies outside"):
        ERMClassifier(**FAST).fit(make(scaled), y, X_val=make(X[:20]), y_val=y[:20])


def test_a_validation_set_that_passed_by_the_scaler_of_a_pipeline_is_a_warning(data):
    X, y, group = data
    X = 50 + 10 * X[:, :8]
    pipeline = make_pipeline(StandardScaler(), LastLayerRetrainer(C=0.5, n_draws=2))
    of_last = {"X_val": X, "y_val": y, "sample_group_val": group}
    with pytest.warns(UserWarning, match="lies outside the range of X in 8 of 8 columns"):
        pipeline.fit(X, y, **{f"lastlayerretrainer__{k}": v for k, v in of_last.items()})


def test_moved_columns_are_no_warning_where_most_samples_stay_inside(data):
    X, y, _ = data
    X = X[:, :8]
    clf = ERMClassifier(**FAST)
    clf.fit(X, y, X_val=X + 0.5 * X.std(0), y_val=y)
