"""NSFClassifier: the four steps, on embeddings and end to end."""

import inspect
import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from torch import nn

from skspurious import (
    ERMClassifier,
    GroupedData,
    NSFClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    worst_group_accuracy,
)
from skspurious._engine._runtime import Runtime
from skspurious.functional import _nsf as functional_nsf
from skspurious.functional import fold_neutral_map
from skspurious.mitigation import _nsf, _nsf_network

fidelity = pytest.mark.fidelity
# Few features: the regulariser pulls each scale by reg_weight / n_features.
EFFECT = {"nsf_lr": 0.01, "reg_weight": 0.5}
FAST = EFFECT | {"nsf_lr": 0.03, "transform_steps": 80, "head_steps": 80, "random_state": 0}
STAGE = {"lr": 0.05, "max_epochs": 3, "batch_size": 64}


def make_planted(n_samples=1000, rho=0.95, s=3.0, c=1.0, noise=1.0, seed=0):
    """Core feature +-c, spurious +-s that agrees with the class in a share rho, six of noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    sign = 2 * y - 1
    conflicting = np.arange(n_samples) // 2 >= round(rho * n_samples / 2)
    spurious = np.where(conflicting, -sign, sign)
    X = np.column_stack([c * sign, s * spurious, np.zeros((n_samples, 6))])
    X += rng.normal(scale=noise, size=X.shape)
    return X.astype(np.float32), y, 2 * y + (spurious > 0)


@pytest.fixture(scope="module")
def data():
    return make_planted()


class Net(nn.Module):
    """Batch normalisation, dropout and two layers; the head is in a block of its own."""

    def __init__(self, n_features=8, n_classes=2, bias=True):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_features)
        self.hidden = nn.Linear(n_features, 6)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, n_classes, bias=bias))

    def forward(self, x):
        return self.head(self.hidden(self.norm(x)).relu())

    def embed(self, x):
        return self.hidden(self.norm(x)).relu()


class Wide(nn.Module):
    """Two layers, without batch statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 32)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


class CrossWired(nn.Module):
    """Registers its head first, so the last linear layer in the list is another one."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 2)
        self.hidden = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


def parameters_of(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()])


# --------------------------------------------------------------------------------------
# Identify


@fidelity
def test_outliers_are_the_far_groups_of_the_inferrer(data):
    X, y, _ = data
    clf = NSFClassifier(**FAST).fit(X, y)
    inferrer = SpuriousGroupInferrer(method="dispersion").fit(X, y)
    assert inferrer.n_clusters_.tolist() == [2, 2]
    is_far = inferrer.labels_ % 2 == 1  # near before far in each class
    assert is_far.any()
    assert_array_equal(clf.outlier_mask_, is_far)
    assert_array_equal(clf.outlier_counts_, inferrer.cluster_sizes_[[1, 3]])


@fidelity
@pytest.mark.filterwarnings("ignore:no sample was rescued")
def test_outliers_and_means_by_hand():
    # class 0: 0, 1, 8 (mean 3); class 1: 9, 10 (mean 9.5): 8 is nearer to 9.5
    X = np.array([[0.0], [1.0], [8.0], [9.0], [10.0]])
    y = ["a", "a", "a", "b", "b"]
    clf = NSFClassifier(**FAST).fit(X, y)
    assert_allclose(clf.class_means_, [[3.0], [9.5]])
    assert clf.outlier_mask_.tolist() == [False, False, True, False, False]
    assert clf.outlier_counts_.tolist() == [1, 0]
    assert_allclose(clf.neutral_centers_, [[(0.5 + 8.0) / 2], [9.5]])
    assert clf.identify_indices_.tolist() == [0, 1, 2, 3, 4]


@fidelity
@pytest.mark.parametrize("rho", [0.95, 0.8])
def test_planted_outliers_are_found_and_centers_lose_the_spurious_component(rho):
    X, y, group = make_planted(rho=rho, noise=0.1)
    clf = NSFClassifier(**FAST).fit(X, y)
    conflicting = np.isin(group, [1, 2])
    assert_array_equal(clf.outlier_mask_, conflicting)
    assert_allclose(clf.neutral_centers_[:, :2], [[-1, 0], [1, 0]], atol=0.06)
    assert_allclose(np.abs(clf.class_means_[:, 1]), (2 * rho - 1) * 3, atol=0.06)


@fidelity
@pytest.mark.filterwarnings("ignore:no sample was rescued")
def test_a_balanced_split_has_no_outlier():
    X, y, _ = make_planted(rho=0.5, noise=0.1)
    clf = NSFClassifier(**FAST).fit(X, y)
    assert not clf.outlier_mask_.any()
    assert_allclose(clf.neutral_centers_, clf.class_means_)


# --------------------------------------------------------------------------------------
# Which samples


@fidelity
@pytest.mark.filterwarnings("ignore:no sample was rescued")  # of a network cut short
def test_the_caller_chooses_the_samples_of_the_four_steps(data):
    X, y, _ = data
    X2, y2, _ = make_planted(400, seed=1)
    on_train = NSFClassifier(Net, **STAGE, **FAST).fit(X, y, X_val=X2, y_val=y2)
    on_eval = clone(on_train).set_params(identify_on="validation").fit(X, y, X_val=X2, y_val=y2)
    on_part = clone(on_train).set_params(identify_on=0.2).fit(X, y)
    assert len(on_train.outlier_mask_) == 1000
    assert len(on_eval.outlier_mask_) == 400
    assert len(on_part.outlier_mask_) == 1000
    assert_array_equal(on_train.identify_indices_, np.arange(1000))
    assert_array_equal(on_eval.identify_indices_, np.arange(400))
    rows = on_part.identify_indices_
    assert np.bincount(y[rows]).tolist() == [100, 100]  # stratified by class
    # the means are those of the embedding of just these samples
    for clf, samples, labels in (
        (on_train, X, y),
        (on_eval, X2, y2),
        (on_part, X[rows], y[rows]),
    ):
        with torch.no_grad():
            Z = clf.module_.embed(torch.from_numpy(samples)).numpy()
        means = [Z[labels == k].mean(0) for k in (0, 1)]
        assert_allclose(clf.class_means_, means, rtol=1e-4, atol=1e-5)


def test_a_held_out_part_is_not_trained_on(data):
    """Spoiling it changes nothing in the backbone; without it, the first stage is ERM."""
    X, y, _ = data
    clf = NSFClassifier(Net, identify_on=0.3, **STAGE, **FAST).fit(X, y)
    held_out = clf.identify_indices_
    spoilt = X.copy()
    spoilt[held_out] = 5.0 * spoilt[held_out] + 3.0
    other = clone(clf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        other.fit(spoilt, y)
    assert_array_equal(other.identify_indices_, held_out)
    assert torch.equal(other.module_.hidden.weight, clf.module_.hidden.weight)
    assert not torch.equal(other.module_.head[1].weight, clf.module_.head[1].weight)


def test_the_first_stage_is_erm(data):
    X, y, _ = data
    clf = NSFClassifier(Net, **STAGE, **FAST).fit(X, y)
    erm = ERMClassifier(Net, **STAGE, random_state=0).fit(X, y)
    assert torch.equal(clf.module_.hidden.weight, erm.module_.hidden.weight)
    rows = clf.history_[clf.history_["stage"] == "erm"]
    assert_array_equal(rows["train_loss"], erm.history_["train_loss"])
    counts = clf.history_["stage"].value_counts()
    assert counts.to_dict() == {"erm": 3, "eliminate": 80, "update": 80}
    losses = clf.history_.groupby("stage")["train_loss"]
    assert (losses.last() < losses.first()).all()


def test_max_epochs_zero_takes_the_network_as_it_is(data):
    X, y, _ = data
    erm = ERMClassifier(Net, **STAGE, random_state=0).fit(X, y)
    trained = NSFClassifier(Net, **STAGE, **FAST).fit(X, y)
    for module in (erm.module_, FrozenEstimator(erm)):
        clf = NSFClassifier(module, max_epochs=0, **FAST).fit(X, y)
        assert_allclose(parameters_of(clf), parameters_of(trained))
        assert set(clf.history_["stage"]) == {"eliminate", "update"}
        assert clf.best_epoch_ is None
    assert isinstance(erm.module_.head[1], nn.Linear)
    assert torch.equal(
        erm.module_.head[1].weight,
        ERMClassifier(Net, **STAGE, random_state=0).fit(X, y).module_.head[1].weight,
    )


def test_the_last_epoch_is_kept_unless_there_is_early_stopping(data):
    X, y, group = data
    valid = dict(zip(("X_val", "y_val"), make_planted(200, seed=2)))
    clf = NSFClassifier(Net, **STAGE, **FAST).fit(X, y, sample_group=group, **valid)
    plain = NSFClassifier(Net, **STAGE, **FAST).fit(X, y)
    assert clf.best_epoch_ is None
    assert torch.equal(parameters_of(clf), parameters_of(plain))
    last = clf.history_.iloc[-1]
    assert last["stage"] == "update"
    assert last["valid_accuracy"] == pytest.approx(clf.score(valid["X_val"], valid["y_val"]))
    stopped = NSFClassifier(Net, early_stopping=True, **STAGE, **FAST).fit(X, y)
    assert stopped.best_epoch_ in (1, 2, 3)
    assert len(stopped.outlier_mask_) == 1000
    assert len(stopped.identify_indices_) == 900
    kept = NSFClassifier(Net, monitor="accuracy", **STAGE, **FAST).fit(X, y, **valid)
    assert kept.best_epoch_ in (1, 2, 3)


def test_embeddings_have_no_first_stage(data):
    X, y, group = data
    plain = NSFClassifier(**FAST).fit(X, y)
    other = NSFClassifier(max_epochs=50, lr=1e30, early_stopping=True, **FAST)
    other.fit(X, y, sample_group=group, X_val=X, y_val=y, sample_group_val=group)
    assert torch.equal(parameters_of(other), parameters_of(plain))
    assert other.used_group_labels_ == {"train": False, "validation": False}
    assert other.history_["valid_worst_group_accuracy"].iloc[-1] == pytest.approx(
        other.score(X, y, sample_group=group)
    )


# --------------------------------------------------------------------------------------
# The network that comes out


@fidelity
def test_without_steps_the_transform_is_the_identity(data):
    X, y, _ = data
    clf = NSFClassifier(**FAST | {"transform_steps": 0}).fit(X, y)
    assert_array_equal(clf.scale_, np.ones(8))
    assert_array_equal(clf.shift_, np.zeros(8))
    assert_array_equal(clf.transform(X), X)


@fidelity
def test_one_step_moves_every_scale_by_the_learning_rate_and_no_shift(data):
    X, y, _ = data
    clf = NSFClassifier(transform_steps=1, random_state=0).fit(X, y)
    assert_array_equal(clf.shift_, np.zeros(8))
    assert_allclose(np.abs(clf.scale_ - 1), 1e-3, rtol=2e-6)


@fidelity
@pytest.mark.parametrize("module", [None, Net])
def test_the_folded_layer_is_the_head_on_the_transform(data, module, monkeypatch):
    X, y, _ = data
    heads = []

    def record(weight, bias, scale, shift):
        heads.append((weight, bias))
        return fold_neutral_map(weight, bias, scale, shift)

    monkeypatch.setattr(_nsf_network, "fold_neutral_map", record)
    clf = NSFClassifier(module, **STAGE, **FAST).fit(X, y)
    weight, bias = heads[-1]
    logits = clf.transform(X) @ weight.T + bias
    decision = clf.decision_function(X)
    assert_allclose(decision, logits[:, 1] - logits[:, 0], atol=1e-5)
    Z = X if module is None else clf.module_.embed(torch.from_numpy(X)).detach().numpy()
    raw = Z @ clf.coef_.T + clf.intercept_
    assert_allclose(decision, raw[:, 1] - raw[:, 0], atol=1e-5)
    assert clf.coef_.shape == (2, Z.shape[1])
    assert np.abs(clf.scale_ - 1).max() > 0.1


def test_on_embeddings_the_network_is_one_linear_layer(data):
    X, y, _ = data
    clf = NSFClassifier(**FAST).fit(X, y)
    assert type(clf.module_) is nn.Linear
    assert_allclose(clf.module_.weight.detach(), clf.coef_)
    assert_allclose(clf.module_.bias.detach(), clf.intercept_)
    assert not clf.module_.training
    images = NSFClassifier(**FAST).fit(X.reshape(-1, 2, 2, 2), y)
    assert images.module_[-1].in_features == 8
    assert_allclose(images.coef_, clf.coef_, atol=1e-6)
    assert images.transform(X.reshape(-1, 2, 2, 2)).shape == (1000, 8)


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_of_a_network_is_replaced_also_without_a_bias(data, bias):
    X, y, _ = data
    clf = NSFClassifier(Net, module_params={"bias": bias}, **STAGE, **FAST).fit(X, y)
    head = clf.module_.head[1]
    assert type(head) is nn.Linear
    assert_allclose(head.bias.detach(), clf.intercept_)
    assert_allclose(head.weight.detach(), clf.coef_)


@pytest.mark.parametrize("max_epochs", [0, 2])
def test_a_network_that_is_one_linear_layer_is_replaced(data, max_epochs):
    X, y, _ = data
    module = nn.Linear(8, 2, bias=False)
    before = module.weight.detach().clone()
    clf = NSFClassifier(module, **STAGE | {"max_epochs": max_epochs}, **FAST).fit(X, y)
    assert type(clf.module_) is nn.Linear
    assert clf.module_.bias is not None
    assert torch.equal(module.weight, before)
    on_embedding = NSFClassifier(**FAST).fit(X, y)
    assert_allclose(clf.coef_, on_embedding.coef_, atol=1e-5)  # the embedding is X either way


def test_a_head_that_is_not_the_last_layer_is_an_error(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"has 5 outputs for 2 classes.*registers its head last"):
        NSFClassifier(CrossWired, **STAGE, **FAST).fit(X, y)


def test_an_embedding_that_is_no_vector_is_an_error(data):
    X, y, _ = data

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            return self.head(x.reshape(len(x), 4, 2)).mean(1)

    with pytest.raises(ValueError, match=r"samples of shape \(4, 2\).*Pool before it"):
        NSFClassifier(Tokens(), **STAGE, **FAST).fit(X, y)


# --------------------------------------------------------------------------------------
# Update


@fidelity
def test_easy_rescued_and_still_wrong(data):
    X, y, _ = data
    clf = NSFClassifier(**FAST).fit(X, y)
    assert_array_equal(clf.easy_mask_, ~clf.outlier_mask_)
    assert not (clf.rescued_mask_ & ~clf.outlier_mask_).any()
    still_wrong = clf.outlier_mask_ & ~clf.rescued_mask_
    assert still_wrong.any()
    assert clf.rescued_mask_.any()
    # nearest neutral center, mapped features
    Z = clf.transform(X).astype(float)
    squared = ((Z[:, None] - clf.neutral_centers_) ** 2).sum(2)
    assert_array_equal(clf.rescued_mask_, clf.outlier_mask_ & (squared.argmin(1) == y))


@fidelity
def test_still_wrong_samples_do_not_reach_the_head(data, monkeypatch):
    X, y, _ = data
    seen = []
    original = functional_nsf.fit_balanced_head

    def record(Z, y, part, weights, **params):
        seen.append((Z, part, weights))
        return original(Z, y, part, weights, **params)

    monkeypatch.setattr(functional_nsf, "fit_balanced_head", record)
    clf = NSFClassifier(**FAST).fit(X, y)
    ((Z, part, weights),) = seen
    used = clf.easy_mask_ | clf.rescued_mask_
    assert used.sum() < len(used)
    assert_allclose(Z, clf.transform(X[used]), atol=1e-5)
    assert_array_equal(part, clf.rescued_mask_[used].astype(int))
    assert weights[part == 1].sum() == pytest.approx(1)  # both groups weigh the same
    assert weights[part == 0].sum() == pytest.approx(1)


@fidelity
def test_one_rescued_sample_is_enough():
    X, y, _ = make_planted(rho=0.5, c=2.0, noise=0.05, n_samples=100)
    X, y = np.r_[X, [[-2.0, 3.0] + [0.0] * 6]].astype(np.float32), np.r_[y, 0]
    X[:100][:, 1] = np.where(y[:100] == 1, 3.0, -3.0)  # all aligned, one conflicts
    # center of class 0: (-2, 0), of class 1: (2, 3); the outlier at (-2, 3) is nearer to the first
    clf = NSFClassifier(**FAST).fit(X, y)
    assert clf.rescued_mask_.sum() == 1
    assert np.isfinite(clf.coef_).all()
    assert clf.score(X, y) > 0.9


@fidelity
@pytest.mark.parametrize("class_balanced", [False, True])
def test_a_class_without_rescued_samples_is_still_learned(class_balanced):
    X, y, group = make_planted(c=2.0, noise=0.3)
    kept = group != 2  # class 1 has no minority
    X, y = X[kept], y[kept]
    clf = NSFClassifier(class_balanced=class_balanced, **FAST).fit(X, y)
    assert clf.rescued_mask_.sum() > 20  # of 25: their core feature is 6 deviations from 0
    assert set(y[clf.rescued_mask_]) == {0}
    assert np.isfinite(clf.coef_).all()
    assert min(np.mean(clf.predict(X)[y == k] == k) for k in (0, 1)) > 0.6


@fidelity
def test_no_rescued_sample_on_embeddings_warns_and_fits_the_easy_samples():
    X, y, _ = make_planted(rho=1.0, noise=0.1)
    X, y = X[(y == 0) | (np.arange(1000) < 100)], y[(y == 0) | (np.arange(1000) < 100)]
    clf = NSFClassifier(**FAST)
    with pytest.warns(UserWarning, match=r"no sample was rescued \(0 of 550.*easy samples"):
        clf.fit(X, y)
    assert np.isfinite(clf.coef_).all()
    assert clf.score(X, y) == 1.0
    # not random: another seed gives the same head
    with pytest.warns(UserWarning, match="no sample was rescued"):
        other = clone(clf).set_params(random_state=7).fit(X, y)
    assert_allclose(other.coef_, clf.coef_, rtol=1e-6)
    assert_allclose(other.intercept_, clf.intercept_, rtol=1e-6)
    # class-balanced, with 500 samples of class 0 and 50 of class 1
    Z = clf.transform(X)
    weight = np.where(y == 0, 0.5 / 500, 0.5 / 50)
    root = clf.predict_proba(X)[:, 1]
    assert abs((weight * (root - y)).sum()) < 0.02
    assert Z.shape == X.shape


@fidelity
def test_no_rescued_sample_of_a_network():
    """A new head has seen the mapped features: it holds where the map is far from the identity."""
    X, y, _ = make_planted(rho=1.0, noise=0.1, n_samples=300)
    with pytest.warns(UserWarning, match="the head is fitted on all easy samples"):
        clf = NSFClassifier(Net, **STAGE, **FAST).fit(X, y)
    assert np.abs(clf.scale_ - 1).max() > 0.1
    assert clf.score(X, y) > 0.99


def test_batches_for_large_data(data, monkeypatch):
    X, y, _ = data
    full = NSFClassifier(**FAST).fit(X, y)
    monkeypatch.setattr(functional_nsf, "_FULL_BATCH", 500)
    monkeypatch.setattr(functional_nsf, "_BATCH", 1000)
    same = NSFClassifier(**FAST).fit(X, y)
    assert torch.equal(parameters_of(full), parameters_of(same))
    monkeypatch.setattr(functional_nsf, "_BATCH", 200)
    batched = NSFClassifier(**FAST).fit(X, y)
    assert not torch.equal(parameters_of(full), parameters_of(batched))
    assert_allclose(batched.scale_, full.scale_, atol=0.1)
    assert np.mean(batched.predict(X) == full.predict(X)) > 0.95
    # only where there are more rows than that
    monkeypatch.setattr(functional_nsf, "_FULL_BATCH", 1000)
    assert torch.equal(parameters_of(NSFClassifier(**FAST).fit(X, y)), parameters_of(full))


# --------------------------------------------------------------------------------------
# The four steps as a function


def _neutral(X, y, state=None, **params):
    params = {"lr": 0.03, "reg_weight": 0.5, "transform_steps": 80, "head_steps": 80} | params
    generator = torch.Generator().manual_seed(0)
    if state is not None:
        generator.set_state(state)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    return functional_nsf.fit_neutral(X, y, n_classes=2, generator=generator, **params)


def _as_arrays(fit):
    parts = fit._replace(head=0, losses=0)
    return [np.asarray(p) for p in (*parts, *fit.head, *fit.losses.values())]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_the_function_is_pure(data, is_weighted, assert_global_rng_untouched):
    X, y, _ = data
    params = {"class_balanced": is_weighted}
    if is_weighted:
        params["sample_weight"] = np.random.default_rng(0).random(len(y))
    given = [X, y, *(v for v in params.values() if isinstance(v, np.ndarray))]
    before = [array.copy() for array in given]
    with assert_global_rng_untouched():
        first = _neutral(X, y, **params)
    again = _neutral(X.copy(), y.copy(), **params)
    for one, other in zip(_as_arrays(first), _as_arrays(again), strict=True):
        assert_array_equal(one, other)
    for array, copy_ in zip(given, before, strict=True):
        assert_array_equal(array, copy_)
    plain = _neutral(X, y)
    assert np.allclose(plain.scale, first.scale) != is_weighted


def test_the_classifier_on_features_is_the_function(data, monkeypatch):
    X, y, _ = data
    states = []

    def spy(*args, generator, **params):
        states.append(generator.get_state())
        return functional_nsf.fit_neutral(*args, generator=generator, **params)

    monkeypatch.setattr(_nsf, "fit_neutral", spy)
    clf = NSFClassifier(**FAST).fit(X, y)
    fit = _neutral(X, y, *states)
    assert_array_equal(clf.class_means_, fit.means)
    assert_array_equal(clf.neutral_centers_, fit.centers)
    assert_array_equal(clf.outlier_mask_, fit.outlier)
    assert_array_equal(clf.rescued_mask_, fit.rescued)
    assert_array_equal(clf.scale_, fit.scale)
    assert_array_equal(clf.shift_, fit.shift)
    weight, bias = (part.double().numpy() for part in fit.head)
    coef, intercept = fold_neutral_map(weight, bias, fit.scale, fit.shift)
    assert_allclose(clf.coef_, coef, rtol=1e-6, atol=1e-7)
    assert_allclose(clf.intercept_, intercept, rtol=1e-6, atol=1e-7)
    losses = clf.history_.groupby("stage")["train_loss"]
    for stage in ("eliminate", "update"):
        assert_allclose(losses.get_group(stage), fit.losses[stage])
    assert not fit.is_fallback


@pytest.mark.filterwarnings("ignore:no sample was rescued")
def test_the_classifier_on_a_network_is_the_function_on_its_embedding(data):
    X, y, _ = data
    clf = NSFClassifier(Net, **STAGE, **FAST).fit(X, y)
    with torch.no_grad():
        Z = clf.module_.embed(torch.from_numpy(X)).numpy()
    fit = _neutral(Z, y)
    assert_array_equal(clf.outlier_mask_, fit.outlier)
    assert_allclose(clf.scale_, fit.scale, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------
# Weights


def test_sample_weights_are_repetitions_up_to_the_head(data):
    X, y, _ = data
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    rows = np.repeat(np.arange(len(y)), weight)
    weighted = NSFClassifier(**FAST).fit(X, y, sample_weight=weight)
    repeated = NSFClassifier(**FAST).fit(X[rows], y[rows])
    assert_array_equal(weighted.outlier_mask_[rows], repeated.outlier_mask_)
    assert_allclose(weighted.class_means_, repeated.class_means_, rtol=1e-6)
    assert_allclose(weighted.neutral_centers_, repeated.neutral_centers_, rtol=1e-6)
    assert_allclose(weighted.scale_, repeated.scale_, atol=1e-3)
    assert_array_equal(weighted.rescued_mask_[rows], repeated.rescued_mask_)
    # 80 steps leave each head a way to go: it differs in 1 % of the rows, give or take one
    assert np.mean(weighted.predict(X) == repeated.predict(X)) > 0.93


def test_samples_of_weight_zero_change_nothing(data):
    X, y, _ = data
    weight = (np.arange(len(y)) % 3 > 0).astype(float)
    spoilt = X.copy()
    spoilt[weight == 0] += 100.0
    one, two = (NSFClassifier(**FAST).fit(Z, y, sample_weight=weight) for Z in (X, spoilt))
    assert_allclose(one.scale_, two.scale_, rtol=1e-4)
    assert_allclose(one.coef_, two.coef_, atol=1e-3)


def test_a_class_of_weight_zero_is_an_error(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"it has none of class \[1\]"):
        NSFClassifier(**FAST).fit(X, y, sample_weight=np.where(y == 1, 0.0, 1.0))


# --------------------------------------------------------------------------------------
# Fine-tuning


@pytest.mark.parametrize("module", [None, Net])
def test_fine_tuning_trains_backbone_map_and_head_and_folds_again(data, module):
    X, y, _ = data
    params = {"fine_tune_epochs": 2, "fine_tune_lr": 0.01} | STAGE
    tuned = NSFClassifier(module, **params, **FAST).fit(X, y)
    before = NSFClassifier(module, **STAGE, **FAST).fit(X, y)
    assert (tuned.history_["stage"] == "fine_tune").sum() == 2
    assert np.abs(tuned.scale_ - before.scale_).max() > 1e-4
    assert np.abs(tuned.shift_ - before.shift_).max() > 1e-6
    assert_array_equal(tuned.neutral_centers_, before.neutral_centers_)
    assert [type(m) for m in tuned.module_.modules()] == [type(m) for m in before.module_.modules()]
    if module is not None:
        assert not torch.equal(tuned.module_.hidden.weight, before.module_.hidden.weight)
        assert tuned.module_.head[1].in_features == 6
    again = pickle.loads(pickle.dumps(tuned))
    assert_array_equal(again.predict_proba(X), tuned.predict_proba(X))


def test_fine_tuning_lowers_the_alignment_loss(data):
    X, y, _ = data
    params = STAGE | {"fine_tune_epochs": 5, "fine_tune_lr": 0.02}

    def distance(weight):
        clf = NSFClassifier(Wide, alignment_weight=weight, **params, **FAST).fit(X, y)
        Z = clf.transform(X)[clf.easy_mask_]
        return np.linalg.norm(Z - clf.neutral_centers_[y[clf.easy_mask_]], axis=1).mean()

    assert distance(3.0) < 0.7 * distance(0.0)


def test_parts_of_the_head_do_not_count_rows_of_weight_zero():
    y, outlier = np.array([0, 0, 1, 1]), np.array([False, True, False, False])
    for weight, expected, is_fallback in (
        (None, [0, 1, 0, 0], False),
        (np.array([1.0, 0.0, 1.0, 1.0]), [0, -1, 0, 0], True),  # the rescued one does not count
        (np.array([0.0, 0.0, 1.0, 0.0]), [0, 0, 0, -1], True),  # nor an easy one of class 0
    ):
        part, found = functional_nsf._parts(y, outlier, outlier, weight)
        assert (part.tolist(), found) == (expected, is_fallback)


def test_alignment_loss_by_hand():
    """Cross-entropy plus the weight times (mean distance of mapped features + reg mean scale)."""
    scale, shift = np.array([0.5, 3.0]), np.array([1.0, -1.0])
    layer = _nsf_network.MappedLinear(scale, shift, np.zeros((2, 2)), np.zeros(2))
    F, centers = np.array([[0.0, 0.0], [2.0, 1.0], [4.0, 2.0]]), np.array([[3.0, 3.0], [1.0, -2.0]])
    y = np.array([0, 1, 1])
    distance = np.linalg.norm((F + shift) * scale - shift - centers[y], axis=1).mean()
    batch = {"X": torch.from_numpy(F).float(), "y": torch.from_numpy(y)}
    batch |= dict.fromkeys(("group", "weight", "is_real"))
    for reg, weight in ((10.0, 1.0), (4.0, 0.5)):
        loss, losses, _ = _nsf_network.AlignmentLoss(centers, reg, weight)(
            layer, batch, Runtime("cpu")
        )
        expected = np.log(2) + weight * (distance + reg * scale.mean())
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert_allclose(losses.detach().numpy(), np.log(2), rtol=1e-6)


# --------------------------------------------------------------------------------------
# A good citizen


@fidelity
def test_fit_needs_no_group_labels_and_permuted_ones_change_nothing(data):
    X, y, group = data
    signature = inspect.signature(NSFClassifier.fit)
    assert signature.parameters["sample_group"].default is None
    for module in (None, Net):
        clf = NSFClassifier(module, **STAGE, **FAST)
        without = clone(clf).fit(X, y)
        given = clone(clf).fit(X, y, sample_group=group)
        permuted = clone(clf).fit(X, y, sample_group=group[::-1])
        assert torch.equal(parameters_of(without), parameters_of(given))
        assert torch.equal(parameters_of(without), parameters_of(permuted))
        assert without.used_group_labels_ == {"train": False, "validation": False}


@fidelity
def test_features_of_another_width_are_an_error(data):
    X, y, _ = data
    clf = NSFClassifier(**FAST).fit(X, y)
    for method in (clf.predict, clf.transform, clf.decision_function):
        with pytest.raises(ValueError, match="has 7 features"):
            method(X[:, :7])


@fidelity
@pytest.mark.filterwarnings("ignore:no sample was rescued")  # of a network cut short
@pytest.mark.parametrize("module", [None, Net])
def test_same_seed_same_head_and_global_generators_untouched(
    data, module, assert_global_rng_untouched
):
    X, y, _ = data
    with assert_global_rng_untouched():
        one, two, other = (
            NSFClassifier(module, fine_tune_epochs=1, **STAGE, **FAST | {"random_state": seed}).fit(
                X, y
            )
            for seed in (0, 0, 1)
        )
        one.transform(X)
    assert torch.equal(parameters_of(one), parameters_of(two))
    assert not torch.equal(parameters_of(one), parameters_of(other))


@fidelity
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_outliers_are_the_same_on_cpu_and_gpu(data):
    X, y, _ = data
    cpu, gpu = (NSFClassifier(device=device, **FAST).fit(X, y) for device in ("cpu", "cuda"))
    assert_array_equal(cpu.outlier_mask_, gpu.outlier_mask_)
    assert_array_equal(cpu.rescued_mask_, gpu.rescued_mask_)
    assert_allclose(cpu.scale_, gpu.scale_, atol=1e-4)


def test_class_labels_and_order_of_features_do_not_matter(data):
    X, y, _ = data
    clf = NSFClassifier(**FAST).fit(X, y)
    order = np.random.default_rng(0).permutation(8)
    permuted = NSFClassifier(**FAST).fit(X[:, order], np.where(y == 1, "a", "b"))
    assert_array_equal(permuted.outlier_mask_, clf.outlier_mask_)
    assert_allclose(permuted.neutral_centers_, clf.neutral_centers_[::-1, order], rtol=1e-6)
    assert_allclose(permuted.scale_, clf.scale_[order], atol=1e-4)


def test_transform_in_a_pipeline_and_names(data):
    X, y, group = data
    clf = NSFClassifier(**FAST)
    Z = clf.fit_transform(GroupedData(X, group), y)
    assert Z.dtype == np.float32
    assert_array_equal(Z, clf.transform(X))
    assert clf.get_feature_names_out().tolist() == [f"nsfclassifier{j}" for j in range(8)]
    frame = clf.set_output(transform="pandas").transform(X)
    assert frame.columns[0] == "nsfclassifier0"
    pipeline = make_pipeline(NSFClassifier(**FAST), ERMClassifier(**STAGE, random_state=0))
    assert pipeline.fit(X, y).predict(X).shape == (1000,)
    wide = NSFClassifier(Net, **STAGE, **FAST).fit(X, y)
    assert wide.transform(X).shape == (1000, 6)
    assert len(wide.get_feature_names_out()) == 6
    embedding = TorchFeatureExtractor(wide.module_).fit_transform(X)
    mapped = (embedding + wide.shift_) * wide.scale_ - wide.shift_
    assert_allclose(wide.transform(X), mapped, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "fit_params", "message"),
    [
        ({"identify_on": "validation"}, {}, r"identify_on='validation' needs fit\(X, y, X_val="),
        ({"identify_on": 0.2}, {}, "there is none with module=None or max_epochs=0"),
        ({"module": Net, "max_epochs": 0, "identify_on": 0.2}, {}, "there is none with"),
        ({"identify_on": "eval_set"}, {}, "The 'identify_on' parameter"),
        ({"identify_on": 1.5}, {}, "The 'identify_on' parameter"),
        ({"nsf_lr": 1e300}, {}, r"NaN or infinite.*\(nsf_lr\) of 1e\+300"),
    ],
)
def test_errors_name_the_parameter(data, params, fit_params, message):
    X, y, _ = data
    with pytest.raises(ValueError, match=message):
        NSFClassifier(**FAST | params).fit(X[:20], y[:20], **fit_params)


def test_validation_samples_without_a_class_are_an_error(data):
    X, y, _ = data
    clf = NSFClassifier(identify_on="validation", **FAST)
    with pytest.raises(ValueError, match=r"it has none of class \[0\]"):
        clf.fit(X, y, X_val=X[y == 1], y_val=y[y == 1])
    alone = y + (np.arange(len(y)) == 0) * 2  # its one sample stays in training
    clf = NSFClassifier(Net, module_params={"n_classes": 3}, identify_on=0.3, **STAGE, **FAST)
    with pytest.raises(ValueError, match=r"needs a sample of every class.*class \[2\]"):
        clf.fit(X, alone)


# --------------------------------------------------------------------------------------
# Effect


@fidelity
def test_worst_group_is_far_above_erm_and_elimination_matters():
    gains = []
    for seed in range(6):
        X, y, _ = make_planted(2000, seed=seed)
        X_test, y_test, group = make_planted(4000, rho=0.5, seed=100 + seed)

        def worst(clf, X=X, y=y, X_test=X_test, y_test=y_test, group=group):
            return worst_group_accuracy(y_test, clf.fit(X, y).predict(X_test), sample_group=group)

        erm = worst(ERMClassifier(lr=0.1, max_epochs=5, random_state=seed))
        nsf = worst(NSFClassifier(random_state=seed, **EFFECT))
        without = worst(NSFClassifier(transform_steps=0, random_state=seed, **EFFECT))
        assert erm < 0.55  # 0.84 is the best that the core feature allows
        assert nsf > 0.72
        gains.append(nsf - without)
    assert np.mean(gains) > 0.02  # 0.06 each, give or take 0.035: 0.014 in the mean of six


def test_worst_group_of_a_network_and_what_fine_tuning_adds():
    worst = []
    for seed in range(5):
        X, y, _ = make_planted(5000, noise=0.8, seed=seed)
        X_test, y_test, group = make_planted(2000, rho=0.5, noise=0.8, seed=100 + seed)
        params = {"lr": 0.05, "max_epochs": 3, "batch_size": 64, "random_state": seed}
        nsf = NSFClassifier(Wide, identify_on=0.3, nsf_lr=0.01, reg_weight=0.0, **params)
        tuned = clone(nsf).set_params(fine_tune_epochs=3)
        unaligned = clone(tuned).set_params(alignment_weight=0.0)
        worst.append(
            [
                worst_group_accuracy(y_test, clf.fit(X, y).predict(X_test), sample_group=group)
                for clf in (ERMClassifier(Wide, **params), nsf, tuned, unaligned)
            ]
        )
    # 30 such data sets: 0.53, 0.66, 0.71, 0.58 in the mean, deviations of 0.07 to 0.14, and now and
    # then one on which nothing works: so medians
    assert np.median(worst, axis=0)[0] < 0.65
    assert np.median(worst, axis=0)[1] > 0.5
    assert np.median(worst, axis=0)[2] > 0.58
    over_erm, over_nsf, over_unaligned = np.median(
        [[tuned - other for other in (erm, nsf, plain)] for erm, nsf, tuned, plain in worst],
        axis=0,
    )
    assert over_erm > 0.05  # 0.17 in the mean, with a deviation of 0.12
    assert over_nsf > -0.05  # 0.05, 0.07
    assert over_unaligned > 0.05  # 0.13, 0.06
