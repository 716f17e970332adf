"""What every classifier promises beyond scikit-learn's checks."""

import copy
import inspect
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_allclose, assert_array_equal
from registry import (
    CLASSIFIERS,
    NEED_GROUPS,
    ONE_STAGE,
    QUICK,
    TAKE_INFERRER,
    ignored_warnings,
    small_table,
)
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    SemiSupervisedGroupInferrer,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    worst_group_scorer,
)
from skspurious.group_inference import KMeansGroups
from skspurious.metrics import worst_group_accuracy

all_classifiers = pytest.mark.parametrize("cls", CLASSIFIERS, ids=lambda entry: entry.name)
# Several stages: not every test about one run of the loop applies; their own files have them.
inferrer_classifiers = pytest.mark.parametrize("cls", TAKE_INFERRER, ids=lambda entry: entry.name)
one_stage_classifiers = pytest.mark.parametrize("cls", ONE_STAGE, ids=lambda entry: entry.name)

FAST = QUICK
pytestmark = ignored_warnings()


@pytest.fixture(scope="module")
def data():
    """Two classes, four groups, the smallest with 4 samples; read-only, as everybody shares it."""
    arrays = small_table()
    for array in arrays:
        array.flags.writeable = False
    assert np.bincount(arrays[2]).min() >= 4
    return arrays


class Net(nn.Module):
    """Batch normalisation, dropout and two layers."""

    def __init__(self, n_classes=2, n_features=8):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_features)
        self.hidden = nn.Linear(n_features, 5)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, n_classes)

    def forward(self, x):
        return self.head(self.dropout(self.hidden(self.norm(x)).relu()))


def make_net(data):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(n_features=data[0].shape[1])


def parameters_of(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()])


def test_the_registry_says_what_each_classifier_is():
    """What an entry claims is what ``fit`` does: else the tests below would ask the wrong thing."""
    X, y, group = small_table()
    for entry in CLASSIFIERS:
        given = {"sample_group": group} if entry.needs_groups else {}
        clf = entry(**FAST).fit(X, y, **given)
        is_one_run = "stage" not in clf.history_ and len(clf.history_) == FAST["max_epochs"]
        assert is_one_run or entry.stages > 1, entry.name
        assert clf.used_group_labels_["train"] <= entry.needs_groups, entry.name
        if entry.needs_groups:
            with pytest.raises(ValueError, match=f"{entry.name} needs the group of every"):
                entry(**FAST).fit(X, y)


# --------------------------------------------------------------------------------------
# The user's objects


@all_classifiers
def test_module_instance_is_never_changed_and_refits_start_fresh(cls, data):
    X, y, group = data
    module = make_net(data)
    before = copy.deepcopy(module.state_dict())
    clf = cls(module, **FAST).fit(X, y, sample_group=group)
    first = parameters_of(clf)
    clf.fit(X, y, sample_group=group)
    assert torch.equal(parameters_of(clf), first)
    assert clf.module is module
    assert clf.module_ is not module
    assert module.training
    assert not clf.module_.training
    assert all(p.grad is None for p in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(first[: len(before["norm.weight"])], before["norm.weight"])


@one_stage_classifiers
def test_training_starts_from_the_weights_of_the_instance(cls, data):
    X, y, group = data
    module = make_net(data)
    clf = cls(module, **FAST | {"lr": 1e-9}).fit(X, y, sample_group=group)
    own = torch.cat([p.detach().ravel() for p in module.parameters()])
    assert_allclose(parameters_of(clf), own, atol=1e-6)


@all_classifiers
def test_a_module_class_is_built_with_module_params_under_the_seed(cls, data):
    X, y, group = data
    params = {"module_params": {"n_features": X.shape[1]}, **FAST, "lr": 1e-9}
    first, again, other = (
        cls(Net, **params | {"random_state": s}).fit(X, y, sample_group=group) for s in (0, 0, 1)
    )
    assert torch.equal(parameters_of(first), parameters_of(again))
    assert not torch.allclose(parameters_of(first), parameters_of(other), atol=1e-3)


@all_classifiers
def test_nothing_that_is_passed_is_modified(cls, data):
    arrays = [np.array(a) for a in data]
    weight = np.linspace(0.5, 1.5, len(arrays[1]), dtype=np.float32)
    before = copy.deepcopy([*arrays, weight])

    def in_place(batch):
        return batch.mul_(0.5)

    X, y, group = arrays
    clf = cls(train_transform=in_place, eval_transform=in_place, early_stopping=True, **FAST)
    clf.fit(
        X, y, sample_group=group, sample_weight=weight, X_val=X, y_val=y, sample_group_val=group
    )
    clf.predict(X)
    for array, old in zip([*arrays, weight], before, strict=True):
        assert_array_equal(array, old)


@all_classifiers
@pytest.mark.parametrize("make", [np.asarray, lambda X: X.astype(np.float64), torch.tensor])
def test_in_place_transforms_never_reach_the_samples(cls, data, make):
    X, y, group = data
    X = make(np.array(X))
    before = copy.deepcopy(X)
    clf = cls(train_transform=torch.Tensor.zero_, eval_transform=torch.Tensor.zero_, **FAST)
    clf.fit(X, y, sample_group=group).predict(X)
    assert_array_equal(X, before)


@all_classifiers
def test_read_only_arrays_are_fine(cls, data, tmp_path):
    X, y, group = data
    assert not X.flags.writeable
    np.save(tmp_path / "X.npy", X)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")
    clf = cls(**FAST).fit(on_disk, y, sample_group=group)
    assert_array_equal(clf.predict(on_disk), clf.predict(X))


@all_classifiers
def test_constructor_arguments_are_stored_as_they_are(cls):
    params = {"module_params": {}, "optimizer_params": {"momentum": 0.5}, "callbacks": []}
    clf = cls(**params)
    for name, value in params.items():
        assert getattr(clf, name) is value


# --------------------------------------------------------------------------------------
# Groups


@pytest.mark.parametrize("cls", NEED_GROUPS, ids=lambda entry: entry.name)
@pytest.mark.parametrize(
    "way", [r"sample_group=g", r"GroupedData\(X, g\)", r"group_inferrer=", r"error_score='raise'"]
)
def test_missing_groups_are_a_loud_error_that_names_the_ways(cls, data, way):
    with pytest.raises(ValueError, match=way):
        cls(**FAST).fit(data[0], data[1])


def test_erm_and_class_balancing_need_no_groups(data):
    for clf in (ERMClassifier(**FAST), BalancedRetrainer(by="class", **FAST)):
        clf.fit(data[0], data[1])
        assert len(clf.groups_) == 0
        assert clf.group_inferrer_ is None
        assert clf.used_group_labels_ == {"train": False, "validation": False}


@all_classifiers
def test_groups_is_not_an_argument_of_fit(cls, data):
    """``GridSearchCV.fit(groups=...)`` would swallow it."""
    with pytest.raises(TypeError, match="groups"):
        cls(**FAST).fit(data[0], data[1], groups=data[2])


@all_classifiers
@pytest.mark.parametrize("change", ["short", "long"])
def test_lengths_of_groups_are_compared(cls, data, change):
    X, y, group = data
    group = group[:-1] if change == "short" else np.append(group, 0)
    with pytest.raises(ValueError, match=rf"sample_group has {len(group)} rows for 120 samples"):
        cls(**FAST).fit(X, y, sample_group=group)


@all_classifiers
def test_lengths_of_everything_else_are_compared(cls, data):
    X, y, group = data
    clf = cls(**FAST)
    with pytest.raises(ValueError, match="inconsistent"):
        clf.fit(X, y[:-1], sample_group=group)
    with pytest.raises(ValueError, match="inconsistent"):
        clf.fit(torch.tensor(X), y[:-1], sample_group=group)
    with pytest.raises(ValueError, match=r"sample_weight\.shape"):
        clf.fit(X, y, sample_group=group, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="sample_group_val has 119 rows for 120"):
        clf.fit(X, y, sample_group=group, X_val=X, y_val=y, sample_group_val=group[:-1])
    with pytest.raises(ValueError, match="inconsistent"):
        clf.fit(X, y, sample_group=group, X_val=X, y_val=y[:-1], sample_group_val=group)
    clf.fit(X, y, sample_group=group)
    with pytest.raises(ValueError, match=r"rows for 120 samples|inconsistent"):
        clf.score(X, y, sample_group=group[:-1])


@all_classifiers
def test_groups_given_and_carried_train_the_same_network(cls, data):
    X, y, group = data
    given = cls(**FAST).fit(X, y, sample_group=group)
    carried = cls(**FAST).fit(GroupedData(X, group), y)
    if not cls.takes_inferrer:  # it always has one, and carried groups are for the score
        bare = cls(**FAST).fit(X, y)
        assert torch.equal(parameters_of(bare), parameters_of(carried))
        assert carried.used_group_labels_ == {"train": False, "validation": False}
        assert given.used_group_labels_ == {"train": True, "validation": False}
        return
    assert torch.equal(parameters_of(given), parameters_of(carried))
    assert given.used_group_labels_ == carried.used_group_labels_
    # NSF has no use for them on embeddings, PruSC never: they are reported.
    assert given.used_group_labels_ == {"train": cls.uses_groups, "validation": False}


@inferrer_classifiers
def test_given_groups_come_before_inferred_ones_and_those_before_carried_ones(cls, data):
    X, y, group = data
    names = np.array(["p", "q", "r", "s"])[group]
    clf = cls(group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_clusters=3, n_init=1)), **FAST)
    clf.fit(GroupedData(X, names), y, sample_group=group + 10)
    assert clf.groups_.tolist() == [10, 11, 12, 13]
    assert (clf.group_inferrer_ is None) != cls.finds_groups
    assert clf.used_group_labels_["train"] == cls.uses_groups
    clf.fit(GroupedData(X, names), y)
    if cls.finds_groups:  # carried ones are what it reports
        assert clf.groups_.tolist() == ["p", "q", "r", "s"]
    else:
        assert_array_equal(clf.groups_, clf.group_inferrer_.groups_)  # for the fit ...
    assert clf.used_group_labels_["train"] is False
    right = clf.predict(X) == y
    worst = min(right[group == g].mean() for g in range(4))
    assert clf.score(GroupedData(X, names), y) == pytest.approx(worst)  # ... and for the score
    without = cls(**FAST).fit(GroupedData(X, names), y)
    if not cls.finds_groups:
        assert without.groups_.tolist() == ["p", "q", "r", "s"]


@inferrer_classifiers
def test_inferred_groups_are_the_labels_of_a_fitted_clone(cls, data):
    X, y, _ = data
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_init=2))
    clf = cls(group_inferrer=inferrer, **FAST).fit(X, y)
    assert not hasattr(inferrer, "labels_")
    assert clf.group_inferrer is inferrer
    assert isinstance(clf.group_inferrer_, SpuriousGroupInferrer)
    assert_array_equal(clf.groups_, clf.group_inferrer_.groups_)
    assert_array_equal(clf.infer_groups(X, y), clf.group_inferrer_.labels_)
    assert clf.used_group_labels_ == {"train": False, "validation": False}


@inferrer_classifiers
def test_an_inferrer_at_the_end_of_a_pipeline(cls, data):
    X, y, _ = data
    early = ERMClassifier(lr=0.1, max_epochs=1)
    find = make_pipeline(
        TorchFeatureExtractor(early, output="proba"), SpuriousGroupInferrer(KMeansGroups(n_init=2))
    )
    clf = cls(group_inferrer=find, **FAST).fit(X, y)
    assert_array_equal(clf.infer_groups(X, y), clf.group_inferrer_[-1].labels_)
    again = cls(group_inferrer=find, **FAST).fit(X, y)
    assert torch.equal(parameters_of(clf), parameters_of(again))  # its random_state=None is seeded


@inferrer_classifiers
def test_a_partly_known_attribute_reaches_the_inferrer_in_fit_and_on_new_samples(cls, data):
    X, y, _ = data
    is_known, place = np.arange(len(y)) % 3 > 0, np.arange(len(y)) // 3 % 2
    carried = GroupedData(X, sample_attribute=np.where(is_known, place, None))
    clf = cls(group_inferrer=SemiSupervisedGroupInferrer(), **FAST).fit(carried, y)
    assert_array_equal(clf.group_inferrer_.is_labelled_, is_known)
    for value in (0, 1):  # what is known of new samples counts before what a model says
        new = GroupedData(X + 0.01, sample_attribute=np.full(len(y), value))
        found = clf.infer_groups(new, y)
        assert_array_equal(clf.group_inferrer_.group_attributes_[found], value)


@pytest.mark.parametrize(
    "cls",
    [c for c in CLASSIFIERS if c.finds_groups or not c.takes_inferrer],
    ids=lambda entry: entry.name,
)
def test_groups_found_without_a_partly_known_attribute_say_so(cls, data):
    X, y, group = data
    with pytest.warns(UserWarning, match="finds groups without the sample_attribute"):
        cls(**FAST).fit(GroupedData(X, sample_attribute=group % 2), y)


@pytest.mark.parametrize(
    "cls", [c for c in CLASSIFIERS if not c.finds_groups], ids=lambda entry: entry.name
)
def test_groups_of_new_rows_need_an_inferrer(cls, data):
    X, y, group = data
    clf = cls(**FAST).fit(X, y, sample_group=group)
    with pytest.raises(ValueError, match="without a group_inferrer"):
        clf.infer_groups(X, y)


@one_stage_classifiers
def test_renaming_the_groups_changes_nothing(cls, data):
    X, y, group = data
    clf = cls(**FAST).fit(X, y, sample_group=group)
    names = np.array(["z", "c", "a", "k"])  # sorts the groups in another order
    renamed = cls(**FAST).fit(X, y, sample_group=names[group])
    assert_allclose(parameters_of(renamed), parameters_of(clf), rtol=1e-4, atol=1e-6)
    assert renamed.groups_.tolist() == ["a", "c", "k", "z"]
    for g, name in enumerate(names):
        column = f"train_accuracy[{name}]"
        assert_allclose(renamed.history_[column], clf.history_[f"train_accuracy[{g}]"])


@all_classifiers
def test_renaming_the_classes_in_order_changes_nothing(cls, data):
    X, y, group = data
    names = np.array(["camel", "cow"])
    clf = cls(**FAST).fit(X, y, sample_group=group)
    named = cls(**FAST).fit(X, names[y], sample_group=group)
    assert named.classes_.tolist() == ["camel", "cow"]
    assert torch.equal(parameters_of(named), parameters_of(clf))
    assert_array_equal(named.predict(X), names[clf.predict(X)])


@all_classifiers
def test_several_attributes_are_crossed(cls, data):
    X, y, group = data
    columns = pd.DataFrame({"label": y, "place": np.array(["sand", "grass"])[group % 2]})
    clf = cls(**FAST).fit(X, y, sample_group=columns)
    assert clf.groups_.tolist() == [(0, "grass"), (0, "sand"), (1, "grass"), (1, "sand")]
    crossed = cls(**FAST).fit(X, y, sample_group=group)
    assert_allclose(parameters_of(crossed), parameters_of(clf), rtol=1e-4, atol=1e-6)


@all_classifiers
def test_ids_with_gaps_and_one_group_and_one_sample_in_a_group(cls, data):
    X, y, _ = data
    for group in (np.where(np.arange(120) == 7, -3, 50), np.zeros(120, dtype=int)):
        clf = cls(**FAST).fit(X, y, sample_group=group)
        assert parameters_of(clf).isfinite().all()
        assert_array_equal(clf.groups_, np.unique(group))


@all_classifiers
def test_missing_group_values_raise(cls, data):
    X, y, group = data
    group = group.astype(float)
    group[5] = np.nan
    with pytest.raises(ValueError, match="sample_group has 1 missing values, the first at row 5"):
        cls(**FAST).fit(X, y, sample_group=group)


@all_classifiers
def test_predict_takes_no_groups(cls, data):
    X, y, group = data
    clf = cls(**FAST).fit(X, y, sample_group=group)
    for name in ("predict", "predict_proba", "decision_function"):
        method = getattr(clf, name)
        assert list(inspect.signature(method).parameters) == ["X"]
        assert_array_equal(method(GroupedData(X, group)), method(X))


@one_stage_classifiers
def test_score_is_the_worst_group_accuracy_where_there_are_groups(cls, data):
    X, y, group = data
    clf = cls(**FAST | {"max_epochs": 1, "lr": 0.01}).fit(X, y, sample_group=group)
    predicted = clf.predict(X)
    accuracy = [np.mean(predicted[group == g] == y[group == g]) for g in range(4)]
    assert clf.score(X, y, sample_group=group) == pytest.approx(min(accuracy))
    assert clf.score(GroupedData(X, group), y) == pytest.approx(min(accuracy))
    assert clf.score(X, y) == pytest.approx(accuracy_score(y, predicted))
    weight = np.linspace(0, 1, len(y))
    assert clf.score(X, y, sample_weight=weight) == pytest.approx(
        np.average(predicted == y, weights=weight)
    )
    assert min(accuracy) < accuracy_score(y, predicted)


# --------------------------------------------------------------------------------------
# Randomness


@all_classifiers
def test_same_seed_same_bits_other_seed_other_network(cls, data):
    X, y, group = data
    net = {"module": Net, "module_params": {"n_features": X.shape[1]}}
    first, again, other = (
        cls(**net, **FAST | {"random_state": s}).fit(X, y, sample_group=group) for s in (0, 0, 1)
    )
    assert torch.equal(parameters_of(first), parameters_of(again))
    assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    columns = first.history_.columns.drop("seconds")
    pd.testing.assert_frame_equal(first.history_[columns], again.history_[columns])
    assert not torch.equal(parameters_of(first), parameters_of(other))


@all_classifiers
def test_every_random_part_depends_on_the_seed(cls, data):
    """An instance fixes the initial weights, so batches and dropout make the difference."""
    X, y, group = data
    module = make_net(data)
    first, other = (
        cls(module, **FAST | {"random_state": s}).fit(X, y, sample_group=group) for s in (0, 1)
    )
    assert not torch.equal(parameters_of(first), parameters_of(other))


@all_classifiers
def test_random_state_instance_goes_on(cls, data):
    X, y, group = data
    random_state = np.random.RandomState(0)
    first, second = (
        parameters_of(cls(**FAST | {"random_state": random_state}).fit(X, y, sample_group=group))
        for _ in range(2)
    )
    assert not torch.equal(first, second)
    again = cls(**FAST | {"random_state": np.random.RandomState(0)}).fit(X, y, sample_group=group)
    assert torch.equal(first, parameters_of(again))


@inferrer_classifiers
@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_are_untouched(cls, data, random_state, assert_global_rng_untouched):
    X, y, _ = data
    clf = cls(
        make_net(data),
        group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_init=2)),
        early_stopping=True,
        **FAST | {"random_state": random_state},
    )
    with assert_global_rng_untouched():
        clf.fit(X, y)
        clf.predict_proba(X)
        clf.infer_groups(X, y)


@all_classifiers
def test_global_generators_have_no_influence(cls, data):
    X, y, group = data
    networks = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            clf = cls(Net, module_params={"n_features": X.shape[1]}, **FAST)
            networks.append(parameters_of(clf.fit(X, y, sample_group=group)))
    assert torch.equal(*networks)


@all_classifiers
def test_predict_twice_gives_the_same_bits(cls, data):
    X, y, group = data
    clf = cls(make_net(data), **FAST).fit(X, y, sample_group=group)
    assert_array_equal(clf.predict_proba(X), clf.predict_proba(X))
    assert_allclose(clf.predict_proba(X[::-1])[::-1], clf.predict_proba(X), rtol=1e-5)


# --------------------------------------------------------------------------------------
# Copies


@inferrer_classifiers
@pytest.mark.parametrize("inferred", [False, True])
def test_pickle_and_joblib_round_trip(cls, data, tmp_path, inferred):
    X, y, group = data
    clf = cls(make_net(data), **FAST)
    if inferred:
        find = make_pipeline(
            TorchFeatureExtractor(ERMClassifier(max_epochs=1), output="proba"),
            SpuriousGroupInferrer(KMeansGroups(n_init=2)),
        )
        clf.set_params(group_inferrer=find).fit(X, y)
    else:
        clf.fit(X, y, sample_group=group)
    joblib.dump(clf, tmp_path / "clf.joblib")
    for again in (pickle.loads(pickle.dumps(clf)), joblib.load(tmp_path / "clf.joblib")):
        assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
        assert_array_equal(again.groups_, clf.groups_)
        pd.testing.assert_frame_equal(again.history_, clf.history_)
        if inferred:
            assert_array_equal(again.infer_groups(X, y), clf.infer_groups(X, y))


@inferrer_classifiers
def test_clone_is_unfitted_and_has_the_same_parameters(cls, data):
    X, y, group = data
    clf = cls(make_net(data), group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_init=3)), **FAST)
    fresh = clone(clf.fit(X, y, sample_group=group))
    assert not hasattr(fresh, "module_")
    assert fresh.get_params()["group_inferrer__method__n_init"] == 3
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    fresh.fit(X, y, sample_group=group)
    assert torch.equal(parameters_of(fresh), parameters_of(clf))


@all_classifiers
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_unfitted_classifiers_say_so(cls, data, method):
    with pytest.raises(NotFittedError, match=cls.__name__):
        getattr(cls(), method)(data[0])


# --------------------------------------------------------------------------------------
# Output


@inferrer_classifiers
def test_nothing_is_printed_by_default(cls, data, capfd):
    X, y, group = data
    clf = cls(
        group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_init=2)), early_stopping=True, **FAST
    )
    clf.fit(X, y).predict(X)
    clf.score(X, y, sample_group=group)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@one_stage_classifiers
def test_verbose_shows_one_progress_bar(cls, data, capfd):
    X, y, group = data
    cls(verbose=1, **FAST).fit(X, y, sample_group=group)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "3/3" in err
    assert "train_loss" in err


@one_stage_classifiers
def test_history_has_a_row_per_epoch(cls, data):
    X, y, group = data
    clf = cls(**FAST).fit(X, y, sample_group=group)
    history = clf.history_
    assert history["epoch"].tolist() == [1, 2, 3]
    assert (history["lr"] == 0.1).all()
    assert (history["seconds"] > 0).all()
    for g in range(4):
        assert history[f"train_accuracy[{g}]"].between(0, 1).all()
    worst = history[[f"train_accuracy[{g}]" for g in range(4)]].min(axis=1)
    assert_allclose(history["train_worst_group_accuracy"], worst)


# --------------------------------------------------------------------------------------
# Kinds of X


class Images(nn.Module):
    """Global means of a convolution."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        assert x.dtype == torch.float32
        return self.head(self.convolution(x).relu().mean((2, 3)))


class Texts(nn.Module):
    """Mean embedding of the token ids."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(64, 4, padding_idx=0)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.embedding(ids))


class DictTexts(Texts):
    """The interface of Hugging Face models: keywords in, an object with logits out."""

    def forward(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape

        class Output:
            logits = Texts.forward(self, input_ids)

        return Output


def tokenize(texts):
    ids = [torch.tensor([1 + ord(c) % 63 for c in text]) for text in texts]
    return nn.utils.rnn.pad_sequence(ids, batch_first=True)


def tokenize_to_dict(texts):
    ids = tokenize(texts)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def tokenize_rows(rows):
    return tokenize([row["text"] for row in rows])


class ImageDataset(Dataset):
    """Map-style dataset of (image, label)."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return torch.from_numpy(self.images[i]), self.labels[i]


class HubDataset:
    """The part of a Hugging Face Dataset's interface that is used."""

    def __init__(self, rows):
        self.rows = list(rows)
        self.column_names = ["text", "label"]

    @property
    def shape(self):
        return len(self.rows), 2

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        assert isinstance(i, int), "one row at a time"
        return self.rows[i]

    def select(self, indices):
        return HubDataset(self.rows[i] for i in indices)


N = 24
LABEL = np.arange(N) % 2
GROUP = np.array(["land", "water"])[np.arange(N) // 2 % 2]
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 3, 6, 6), dtype=np.uint8)
WORDS = [("aa b" if label else "zz y") + " word" * (i % 3) for i, label in enumerate(LABEL)]
TABLE = RNG.normal(size=(N, 5))
ON_IMAGES = {"module": Images}
ON_TEXTS = {"module": Texts, "collate_fn": tokenize}


def as_paths(folder):
    paths = [str(folder / f"{i}.png") for i in range(N)]
    for path, image in zip(paths, PIXELS):
        to_pil_image(torch.from_numpy(image)).save(path)
    return paths


# name: how X is made, the parameters that it needs, and the kind whose network it must equal
KINDS = {
    "array": (lambda _: TABLE, {}, None),
    "float32 array": (lambda _: TABLE.astype(np.float32), {}, "array"),
    "Fortran array": (lambda _: np.asfortranarray(TABLE), {}, "array"),
    "list of lists": (lambda _: TABLE.tolist(), {}, "array"),
    "DataFrame": (lambda _: pd.DataFrame(TABLE, index=range(5, 5 + N)), {}, "array"),
    "2-D tensor": (lambda _: torch.tensor(TABLE).float(), {}, "array"),
    "uint8 images": (lambda _: PIXELS, ON_IMAGES, None),
    "float images": (lambda _: PIXELS.astype(np.float32) / 255, ON_IMAGES, "uint8 images"),
    "float64 images": (lambda _: PIXELS / 255.0, ON_IMAGES, "uint8 images"),
    "uint8 tensor": (lambda _: torch.from_numpy(PIXELS), ON_IMAGES, "uint8 images"),
    "float tensor": (lambda _: torch.from_numpy(PIXELS) / 255, ON_IMAGES, "uint8 images"),
    "paths": (as_paths, ON_IMAGES, "uint8 images"),
    "array of paths": (lambda f: np.array(as_paths(f)), ON_IMAGES, "uint8 images"),
    "Series of paths": (lambda f: pd.Series(as_paths(f)), ON_IMAGES, "uint8 images"),
    "torch Dataset": (lambda _: ImageDataset(PIXELS, LABEL), ON_IMAGES, "uint8 images"),
    "list of tensors": (lambda _: list(torch.from_numpy(PIXELS)), ON_IMAGES, "uint8 images"),
    "images without a module": (lambda _: PIXELS, {}, None),
    "texts": (lambda _: WORDS, ON_TEXTS, None),
    "array of texts": (lambda _: np.array(WORDS), ON_TEXTS, "texts"),
    "dict batches": (
        lambda _: WORDS,
        {"module": DictTexts, "collate_fn": tokenize_to_dict},
        "texts",
    ),
    "Hugging Face Dataset": (
        lambda _: HubDataset({"text": t, "label": y} for t, y in zip(WORDS, LABEL)),
        {"module": Texts, "collate_fn": tokenize_rows},
        "texts",
    ),
}
ON_KINDS = {"lr": 0.1, "max_epochs": 2, "batch_size": 8, "random_state": 0}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Fitted GroupDRO of each kind, made when it is asked for."""
    made = {}

    def get(name):
        if name not in made:
            make, params, _ = KINDS[name]
            X = make(tmp_path_factory.mktemp("images"))
            clf = GroupDROClassifier(**params, **ON_KINDS)
            made[name] = X, clf.fit(GroupedData(X, GROUP), LABEL)
        return made[name]

    return get


@pytest.mark.parametrize("name", KINDS)
def test_fit_takes_every_kind_of_X_with_the_same_result(networks, name):
    X, clf = networks(name)
    assert clf.predict(X).shape == (N,)
    assert clf.predict_proba(X).shape == (N, 2)
    same_as = KINDS[name][2]
    if same_as is not None:
        expected = networks(same_as)[1]
        assert_allclose(parameters_of(clf), parameters_of(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_X_is_taken_bare_and_in_grouped_data(networks, name):
    X, carried = networks(name)
    given = clone(carried).fit(X, LABEL, sample_group=GROUP)
    assert torch.equal(parameters_of(given), parameters_of(carried))
    assert_allclose(given.predict_proba(GroupedData(X, None)), given.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_X_is_sliced_with_its_groups_in_cross_validation(networks, name):
    X, clf = networks(name)
    scores = cross_val_score(
        clf, GroupedData(X, GROUP), LABEL, scoring=worst_group_scorer, cv=2, error_score="raise"
    )
    for (train, test), score in zip(StratifiedKFold(2).split(LABEL, LABEL), scores, strict=True):
        X_train, X_test = GroupedData(X, GROUP)[train], GroupedData(X, GROUP)[test]
        predicted = clone(clf).fit(X_train, LABEL[train]).predict(X_test.data)
        right = predicted == LABEL[test]
        assert score == min(right[GROUP[test] == g].mean() for g in ("land", "water"))


@pytest.mark.parametrize("name", [n for n in KINDS if n != "Hugging Face Dataset"])
def test_bare_X_is_sliced_in_cross_validation(networks, name):
    """Only Hugging Face's ``__getitem__`` does not take what scikit-learn asks for."""
    erm = ERMClassifier(**KINDS[name][1], **ON_KINDS)
    scores = cross_val_score(erm, networks(name)[0], LABEL, cv=2, error_score="raise")
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("name", ["array", "uint8 images", "paths", "texts", "torch Dataset"])
def test_every_kind_of_X_can_be_for_validation(networks, name):
    X, clf = networks(name)
    clf = clone(clf).fit(X, LABEL, sample_group=GROUP, X_val=X, y_val=LABEL, sample_group_val=GROUP)
    best = clf.history_["valid_worst_group_accuracy"].max()
    assert worst_group_accuracy(LABEL, clf.predict(X), sample_group=GROUP) == pytest.approx(best)


def test_a_linear_head_flattens_images(networks):
    _, clf = networks("images without a module")
    assert clf.module_[-1].in_features == 3 * 6 * 6


def test_uint8_pixels_are_scaled_to_one_and_a_2d_uint8_table_is_not():
    images = ERMClassifier(Images, **ON_KINDS).fit(PIXELS, LABEL)
    assert_allclose(
        images.decision_function(PIXELS),
        images.decision_function(PIXELS.astype(np.float32) / 255),
        rtol=1e-5,
    )
    table = PIXELS[:, 0, 0].astype(np.uint8)
    clf = ERMClassifier(**ON_KINDS | {"lr": 1e-4}).fit(table, LABEL)
    assert_array_equal(clf.decision_function(table), clf.decision_function(table.astype(float)))


def test_images_of_different_sizes_are_an_error_that_says_what_to_do(tmp_path):
    for size, name in ((6, "a"), (7, "b")):
        to_pil_image(torch.zeros(3, size, size)).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    with pytest.raises(ValueError, match=r"differ in shape.*image_size="):
        ERMClassifier(Images).fit(paths, [0, 1])


def test_texts_without_a_collate_fn_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"is not a file.*for texts, pass a collate_fn"):
        ERMClassifier(Texts).fit(WORDS, LABEL)


@all_classifiers
@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_X_is_refused_clearly(cls, make):
    clf = cls(**FAST)
    for X in (make(TABLE), GroupedData(make(TABLE), GROUP)):
        with pytest.raises(TypeError, match=r"Sparse.*dense"):
            clf.fit(X, LABEL, sample_group=GROUP)


@one_stage_classifiers
def test_data_frame_names_are_kept_and_checked(cls):
    frame = pd.DataFrame(TABLE, columns=list("abcde"))
    clf = cls(**ON_KINDS).fit(frame, LABEL, sample_group=GROUP)
    assert clf.feature_names_in_.tolist() == list("abcde")
    assert clf.n_features_in_ == 5
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame.rename(columns={"a": "z"}))
    carried = clone(clf).fit(GroupedData(frame, GROUP), LABEL)
    assert carried.feature_names_in_.tolist() == list("abcde")
    clf.fit(torch.tensor(TABLE[:, :3]), LABEL, sample_group=GROUP)  # what was learned is forgotten
    assert not hasattr(clf, "feature_names_in_")
    assert clf.n_features_in_ == 3


@pytest.mark.parametrize("X", [PIXELS, torch.from_numpy(PIXELS)])
def test_samples_of_another_shape_are_refused(X):
    clf = ERMClassifier(Images, **ON_KINDS).fit(X, LABEL)
    assert clf.n_features_in_ == 3
    with pytest.raises(ValueError, match=r"samples of shape \(3, 6, 5\).*\(3, 6, 6\)"):
        clf.predict(X[..., :5])


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_nan_in_images_is_refused(make):
    X = make(PIXELS / 255)
    X[3, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        ERMClassifier(Images).fit(X, LABEL)


def test_empty_and_flat_X_are_refused():
    with pytest.raises(ValueError, match="X has 0 samples"):
        ERMClassifier(Images).fit(PIXELS[:0], LABEL[:0])
    with pytest.raises(ValueError, match="X has 0 samples"):
        ERMClassifier(Images).fit(ImageDataset(PIXELS[:0], []), LABEL[:0])
    with pytest.raises(ValueError, match="one row per sample"):
        ERMClassifier().fit(torch.zeros(N), LABEL)
    with pytest.raises(ValueError, match="requires y to be passed"):
        ERMClassifier(Images).fit(ImageDataset(PIXELS, LABEL), None)


@one_stage_classifiers
@pytest.mark.parametrize(
    "make", [list, torch.tensor, lambda y: pd.Series(y, index=range(50, 50 + N)), pd.Categorical]
)
def test_every_kind_of_y(cls, make):
    y = make(LABEL)
    expected = cls(**ON_KINDS).fit(TABLE, LABEL, sample_group=GROUP)
    clf = cls(**ON_KINDS).fit(TABLE, y, sample_group=GROUP, X_val=TABLE, y_val=y)
    assert clf.classes_.tolist() == [0, 1]
    assert_array_equal(clf.history_["train_loss"], expected.history_["train_loss"])
    assert clf.score(TABLE, y) == clf.score(TABLE, LABEL)


# --------------------------------------------------------------------------------------
# Validation


@one_stage_classifiers
def test_forms_of_validation_samples(cls, data):
    X, y, group = data
    forms = [
        {"X_val": X, "y_val": y, "sample_group_val": group},
        {"X_val": X.tolist(), "y_val": y.tolist(), "sample_group_val": group.tolist()},
        {"X_val": GroupedData(X, group), "y_val": y},
        {"X_val": torch.tensor(X), "y_val": torch.tensor(y), "sample_group_val": group},
        {
            "X_val": pd.DataFrame(X),
            "y_val": pd.Series(y),
            "sample_group_val": pd.Series(group, index=range(7, 127)),
        },
    ]
    histories = [
        cls(**FAST).fit(X, y, sample_group=group, **form).history_.drop(columns="seconds")
        for form in forms
    ]
    assert "valid_worst_group_accuracy" in histories[0]
    for history in histories[1:]:
        pd.testing.assert_frame_equal(history, histories[0])


@one_stage_classifiers
def test_validation_without_groups_is_judged_by_accuracy(cls, data):
    X, y, group = data
    clf = cls(**FAST).fit(X, y, sample_group=group, X_val=X, y_val=y)
    assert "valid_worst_group_accuracy" not in clf.history_
    assert clf.score(X, y) == pytest.approx(clf.history_["valid_accuracy"].max())
    assert clf.used_group_labels_ == {"train": True, "validation": False}


@one_stage_classifiers
def test_validation_samples_get_inferred_groups(cls, data):
    X, y, group = data
    clf = cls(group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_init=2)), **FAST)
    clf.fit(X, y, X_val=X, y_val=y)
    assert "valid_worst_group_accuracy" in clf.history_
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    clf.fit(X, y, X_val=X, y_val=y, sample_group_val=group)
    assert clf.used_group_labels_ == {"train": False, "validation": True}


@one_stage_classifiers
@pytest.mark.parametrize("names", [np.arange(4), np.array(["a", "b", "c", "d"])])
def test_group_labels_of_validation_samples_are_not_mixed_with_inferred_groups(cls, data, names):
    """Labels for validation alone: group 0 there is not the inferrer's group 0."""
    X, y, group = data
    clf = cls(group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_clusters=3, n_init=2)), **FAST)
    clf.fit(X, y, X_val=X, y_val=y, sample_group_val=names[group])
    assert clf.groups_.tolist() == list(range(6))
    columns = clf.history_.columns
    assert [c for c in columns if c.startswith("train_accuracy[")] == [
        f"train_accuracy[{g}]" for g in range(6)
    ]
    valid = [f"valid_accuracy[{g}]" for g in names]
    assert [c for c in columns if c.startswith("valid_accuracy[")] == valid
    best = clf.history_.iloc[clf.best_epoch_ - 1]
    right = clf.predict(X) == y
    assert_allclose(best[valid].astype(float), [right[group == g].mean() for g in range(4)])


@all_classifiers
@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda X, y: {"X_val": X}, "X_val needs y_val"),
        (lambda X, y: {"y_val": y}, "go with X_val, which is missing"),
        (lambda X, y: {"sample_group_val": y}, "go with X_val, which is missing"),
        (lambda X, y: {"X_val": X, "y_val": y + 1}, r"classes that are not in y: \[2\]"),
        (lambda X, y: {"X_val": X[:, :2], "y_val": y}, "features"),
    ],
)
def test_validation_errors(cls, data, form, message):
    X, y, group = data
    with pytest.raises(ValueError, match=message):
        cls(**FAST).fit(X, y, sample_group=group, **form(X, y))


@one_stage_classifiers
def test_a_group_absent_from_the_validation_samples_is_nan_there_and_never_the_worst(cls, data):
    X, y, group = data
    kept = group != 1
    clf = cls(**FAST).fit(
        X, y, sample_group=group, X_val=X[kept], y_val=y[kept], sample_group_val=group[kept]
    )
    history = clf.history_
    assert history["valid_accuracy[1]"].isna().all()
    assert history["train_accuracy[1]"].notna().any()
    others = history[[f"valid_accuracy[{g}]" for g in (0, 2, 3)]]
    assert_allclose(history["valid_worst_group_accuracy"], others.min(axis=1))


@pytest.mark.parametrize("cls", [ERMClassifier, GroupDROClassifier])
def test_a_group_that_only_the_validation_samples_have(cls, data):
    X, y, group = data
    kept = group != 1
    clf = cls(**FAST).fit(
        X[kept], y[kept], sample_group=group[kept], X_val=X, y_val=y, sample_group_val=group
    )
    assert sorted(clf.groups_) == [0, 1, 2, 3]
    assert clf.history_["valid_accuracy[1]"].notna().all()
    assert clf.history_["train_accuracy[1]"].isna().all()
    alone = cls(**FAST).fit(X[kept], y[kept], sample_group=group[kept])
    assert_allclose(alone.history_["train_loss"], clf.history_["train_loss"], rtol=1e-5)


def _reference_best_epoch(values, accuracy):
    """The largest value; ties to the higher accuracy, then to the later epoch."""
    return max(range(len(values)), key=lambda i: (values[i], accuracy[i], i)) + 1


@one_stage_classifiers
@pytest.mark.parametrize("monitor", ["auto", "worst_group_accuracy", "accuracy", "loss"])
def test_the_network_of_the_best_epoch_is_kept(cls, data, monitor):
    X, y, group = data
    params = FAST | {"max_epochs": 12, "lr": 0.5, "monitor": monitor}
    clf = cls(**params).fit(X, y, sample_group=group, X_val=X, y_val=y, sample_group_val=group)
    history = clf.history_
    column = {"auto": "worst_group_accuracy"}.get(monitor, monitor)
    values = history[f"valid_{column}"] * (-1 if monitor == "loss" else 1)
    best = _reference_best_epoch(values, history["valid_accuracy"])
    assert clf.best_epoch_ == best
    assert len(history) == 12
    row = history.iloc[best - 1]
    assert clf.score(X, y) == pytest.approx(row["valid_accuracy"])
    assert clf.score(X, y, sample_group=group) == pytest.approx(row["valid_worst_group_accuracy"])


@all_classifiers
def test_monitor_none_keeps_the_last_epoch(cls, data):
    X, y, group = data
    clf = cls(monitor=None, **FAST).fit(
        X, y, sample_group=group, X_val=X, y_val=y, sample_group_val=group
    )
    plain = cls(**FAST).fit(X, y, sample_group=group)
    assert clf.best_epoch_ is plain.best_epoch_ is None
    assert torch.equal(parameters_of(clf), parameters_of(plain))


@one_stage_classifiers
def test_early_stopping_stops_after_its_patience(cls, data):
    X, y, group = data
    params = FAST | {"max_epochs": 50, "lr": 1e-9}  # nothing ever improves
    clf = cls(early_stopping=True, n_epochs_no_change=4, **params)
    clf.fit(X, y, sample_group=group)
    assert len(clf.history_) == 5
    assert clf.used_group_labels_ == {"train": True, "validation": True}
    clf.fit(X, y, sample_group=group, X_val=X, y_val=y, sample_group_val=group)
    assert len(clf.history_) == 5


@one_stage_classifiers
def test_validation_fraction_keeps_every_class_and_group_on_both_sides(cls, data):
    X, y, _ = data
    group = np.zeros(120, dtype=int)
    group[[1, 5]] = 1  # two samples: one on each side
    group[:3] += 2 * (y[:3] == 1)
    group = np.where(np.arange(120) < 60, group, 9)
    clf = cls(early_stopping=True, **FAST)
    for seed in range(3):
        clf.set_params(random_state=seed).fit(X, y, sample_group=group)
        sizes = pd.Series(group).value_counts()
        for value in clf.groups_:
            seen = clf.history_[f"valid_accuracy[{value}]"].notna().all()
            assert seen == (sizes[value] > 1), value
        cell = 10 * y + group
        kept, aside = (cell[rows] for rows in (clf.train_indices_, clf.validation_indices_))
        assert len(kept) + len(aside) == 120
        for value, n in zip(*np.unique(cell, return_counts=True)):
            assert (kept == value).sum() >= 1
            assert ((aside == value).sum() >= 1) == (n > 1)
            assert abs((aside == value).sum() - 0.1 * n) <= 1


@all_classifiers
def test_validation_fraction_that_leaves_nothing_is_an_error(cls, data):
    module = nn.Linear(data[0].shape[1], 2)  # on embeddings NSF has no epochs, so no validation
    clf = cls(module, early_stopping=True, validation_fraction=0.001, **FAST)
    with pytest.raises(ValueError, match="leaves none for validation"):
        clf.fit(data[0][:2], [0, 1], sample_group=[0, 1])


def test_monitoring_groups_that_do_not_exist_is_an_error(data):
    X, y, _ = data
    clf = ERMClassifier(monitor="worst_group_accuracy", **FAST)
    with pytest.raises(ValueError, match="needs the groups of the validation samples"):
        clf.fit(X, y, X_val=X, y_val=y)


# --------------------------------------------------------------------------------------
# Training that cannot work


@all_classifiers
@pytest.mark.parametrize("early_stopping", [False, True])
def test_diverged_training_raises_with_epoch_and_learning_rate(cls, data, early_stopping):
    X, y, group = data
    clf = cls(make_net(data), early_stopping=early_stopping, **FAST | {"lr": 1e30})
    with pytest.raises(ValueError, match=r"diverged.*in epoch [123] at lr=1e\+30"):
        clf.fit(X, y, sample_group=group)
    assert not hasattr(clf, "module_")


@all_classifiers
def test_a_refit_that_diverges_leaves_no_network_of_before_behind_a_changed_one(cls, data):
    X, y, group = data
    clf = cls(**FAST).fit(X, y, sample_group=group)
    before = clf.predict_proba(X)
    with pytest.raises(ValueError, match="diverged"):
        clf.set_params(module=make_net(data), lr=1e30).fit(X, y, sample_group=group)
    clf.set_params(module=None, lr=0.1)
    assert_array_equal(clf.predict_proba(X), before)


@all_classifiers
def test_a_network_that_does_not_fit_the_classes_is_an_error_before_training(cls, data):
    X, y, group = data
    with pytest.raises(ValueError, match=r"where \(n_samples, 2\) is needed"):
        cls(nn.Linear(X.shape[1], 3), **FAST).fit(X, y, sample_group=group)
    with pytest.raises(ValueError, match=r"where \(n_samples, 2\) is needed"):
        cls(nn.Linear(X.shape[1], 1), **FAST).fit(X, y, sample_group=group)


@all_classifiers
def test_one_class_is_an_error(cls, data):
    X, y, group = data
    with pytest.raises(ValueError, match="needs samples of at least 2 classes"):
        cls(**FAST).fit(X, np.zeros_like(y), sample_group=group)


@one_stage_classifiers
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("max_epochs", 0),
        ("batch_size", 2.5),
        ("monitor", "f1"),
        ("optimizer", "lbfgs"),
        ("lr_schedule", "step"),
        ("precision", "float64"),
        ("validation_fraction", 1.0),
        ("module", 3),
        ("callbacks", "print"),
        ("group_inferrer", "kmeans"),
    ],
)
def test_parameters_are_checked_in_fit(cls, data, name, value):
    X, y, group = data
    with pytest.raises(ValueError, match=f"The '{name}' parameter of {cls.__name__}"):
        cls(**{name: value}).fit(X, y, sample_group=group)


@all_classifiers
def test_weights_without_a_torchvision_name_are_an_error(cls, data):
    X, y, group = data
    with pytest.raises(ValueError, match="goes with the name of a torchvision model"):
        cls(weights="DEFAULT").fit(X, y, sample_group=group)


# --------------------------------------------------------------------------------------
# Weights and numbers


def test_erm_with_one_batch_weights_are_repetitions_up_to_rounding(data):
    """Why scikit-learn's check of it is expected to fail, with mini-batches alone."""
    X, y, _ = data
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    params = {"lr": 0.1, "max_epochs": 20, "batch_size": 1000, "random_state": 0}
    weighted = ERMClassifier(**params).fit(X, y, sample_weight=weight)
    repeated = ERMClassifier(**params).fit(X.repeat(weight, axis=0), y.repeat(weight))
    assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)
    plain = ERMClassifier(**params).fit(X, y)
    assert np.abs(plain.predict_proba(X) - repeated.predict_proba(X)).max() > 1e-3


@all_classifiers
def test_sample_weights_matter_and_their_scale_does_not(cls, data):
    X, y, group = data
    weight = np.where(y == 1, 5.0, 1.0)
    fits = [
        cls(**FAST).fit(X, y, sample_group=group, sample_weight=w)
        for w in (None, weight, 3 * weight, np.ones(len(y)))
    ]
    if not issubclass(cls.cls, GroupDROClassifier):  # its groups are means within classes here
        positive = [clf.predict_proba(X)[:, 1].mean() for clf in fits]
        assert positive[1] > positive[0]
    assert_allclose(parameters_of(fits[2]), parameters_of(fits[1]), rtol=1e-4, atol=1e-5)
    assert_allclose(parameters_of(fits[3]), parameters_of(fits[0]), rtol=1e-4, atol=1e-5)


@all_classifiers
def test_probabilities_and_decisions_agree(cls, data):
    X, y, group = data
    for target in (y, y + (np.arange(120) % 3 == 0)):  # two classes, three classes
        clf = cls(**FAST).fit(X, target, sample_group=group)
        decision, probability = clf.decision_function(X), clf.predict_proba(X)
        assert_allclose(probability.sum(1), 1)
        assert_array_equal(clf.predict(X), clf.classes_[probability.argmax(1)])
        if len(clf.classes_) == 2:
            assert_allclose(decision, np.log(probability[:, 1] / probability[:, 0]), atol=1e-6)
        else:
            assert_allclose(np.exp(decision) / np.exp(decision).sum(1, keepdims=True), probability)


def test_logits_of_a_linear_head_do_not_depend_on_the_batch(data):
    X, y, _ = data
    clf = ERMClassifier(**FAST).fit(X, y)
    one_by_one = np.concatenate([clf.decision_function(X[[i]]) for i in range(len(X))])
    assert_allclose(one_by_one, clf.decision_function(X), rtol=1e-12)
    weight, bias = (p.detach().double().numpy() for p in clf.module_.parameters())
    logits = X.astype(float) @ weight.T + bias
    assert_allclose(clf.decision_function(X), logits[:, 1] - logits[:, 0], rtol=1e-9, atol=1e-12)
    assert clf.module_.weight.dtype == torch.float32


@one_stage_classifiers
def test_mixed_precision_predicts_what_full_precision_does(cls, data):
    X, y, group = data
    full = cls(make_net(data), **FAST).fit(X, y, sample_group=group)
    mixed = cls(make_net(data), precision="bf16", **FAST).fit(X, y, sample_group=group)
    assert_allclose(mixed.predict_proba(X), full.predict_proba(X), atol=0.1)
    assert mixed.predict_proba(X).dtype == np.float64
