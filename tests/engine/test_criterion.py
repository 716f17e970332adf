"""A loss of one's own: where it is used, what it must be, and what goes along with it."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from skspurious import (
    AFRClassifier,
    AutoRetrainer,
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    LfFClassifier,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SELFClassifier,
    SPAREClassifier,
    SpuriousSamplePruner,
    XRMClassifier,
    load_model,
    save_model,
)
from skspurious.datasets import make_spurious_classification
from skspurious.group_inference import KMeansGroups, SpareGroups

PLAIN = nn.CrossEntropyLoss(reduction="none")
SMOOTH = nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")
FAST = {"lr": 0.1, "max_epochs": 2, "batch_size": 32, "random_state": 0}
METHODS = {
    "erm": ERMClassifier,
    "dro": GroupDROClassifier,
    "balanced": BalancedRetrainer,
    "jtt": partial(JTTClassifier, up_weight=3),
    "spare": partial(SPAREClassifier, group_method=SpareGroups(n_init=1)),
    "george": partial(GEORGEClassifier, group_method=KMeansGroups(n_clusters=2, n_init=1)),
    "xrm": XRMClassifier,
    "lff": LfFClassifier,
    "afr": partial(AFRClassifier, gamma=1.0),
    "self": partial(SELFClassifier, head_steps=20),
    "prusc": partial(
        PruSCNetwork, n_clusters=2, balanced_set="cell", mask_steps=4, fine_tune_epochs=1
    ),
    "pruned": partial(PrunedRetrainer, score_epochs=1, on_identifiable="ignore"),
    "dfr": partial(LastLayerRetrainer, n_draws=2),
    "nsf": partial(NSFClassifier, transform_steps=5, head_steps=10, fine_tune_epochs=1),
}
WARNINGS = pytest.mark.filterwarnings(
    "ignore:(the error set is|sparsity 0|the network is right on|.*cluster)"
)


def mlp():
    return nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))


def smooth_by_hand(logits, y):
    log_p = logits.log_softmax(1)
    return -0.8 * log_p.gather(1, y[:, None])[:, 0] - 0.2 * log_p.mean(1)


@pytest.fixture(scope="module")
def data():
    bunch = make_spurious_classification(120, correlation_strength=0.9, random_state=0)
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


def _parameters(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()]).numpy()


def _smooth_loss(clf, X, y):
    with torch.no_grad():
        return smooth_by_hand(clf.module_(torch.tensor(X)), torch.tensor(y)).mean().item()


def _fit(clf, data):
    X, y, group = data
    finds_groups = isinstance(clf, SPAREClassifier | GEORGEClassifier | XRMClassifier)
    return clf.fit(X, y, **({} if finds_groups else {"sample_group": group}))


# --------------------------------------------------------------------------------------
# Where it is used


@WARNINGS
@pytest.mark.parametrize("name", METHODS)
def test_the_cross_entropy_by_name_changes_nothing_and_another_loss_does(name, data):
    make = partial(METHODS[name], mlp, **FAST)
    default, plain, smooth = (
        _parameters(_fit(make(criterion=criterion), data)) for criterion in (None, PLAIN, SMOOTH)
    )
    # The last layer of SELF has its gradient written out for the cross-entropy alone.
    assert_allclose(plain, default, rtol=0, atol=1e-6 if name == "self" else 0)
    assert np.abs(smooth - default).max() > 1e-4


@WARNINGS
@pytest.mark.parametrize("name", ["erm", "dro", "balanced", "prusc", "self"])
def test_smooth_labels_by_module_and_by_hand(name, data):
    make = partial(METHODS[name], mlp, **FAST)
    module, by_hand = (
        _parameters(_fit(make(criterion=criterion), data)) for criterion in (SMOOTH, smooth_by_hand)
    )
    assert_allclose(module, by_hand, atol=1e-4)


def test_history_shows_the_losses_of_the_criterion(data):
    X, y, _ = data
    clf = ERMClassifier(mlp, criterion=SMOOTH, **FAST).fit(X, y, X_val=X[:50], y_val=y[:50])
    row = clf.history_.iloc[clf.best_epoch_ - 1]
    assert row["valid_loss"] == pytest.approx(_smooth_loss(clf, X[:50], y[:50]), rel=1e-5)
    # At a rate of next to nothing the losses of an epoch are those of the network in the end.
    still = {**FAST, "lr": 1e-12, "max_epochs": 1}
    clf = ERMClassifier(mlp, criterion=smooth_by_hand, **still).fit(X, y)
    assert clf.history_["train_loss"][0] == pytest.approx(_smooth_loss(clf, X, y), rel=1e-5)


# --------------------------------------------------------------------------------------
# Linear heads that are fitted to their minimum


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["erm", "dro", "balanced"])
def test_a_head_has_the_same_minimum_with_the_cross_entropy_by_name(name, n_classes):
    rng = np.random.default_rng(0)
    X, y, group = rng.normal(size=(90, 4)), rng.integers(0, n_classes, 90), np.arange(90) % 5
    X[:, 0] += y
    default, plain = (
        _parameters(_fit(METHODS[name](criterion=c, random_state=0), (X, y, group)))
        for c in (None, PLAIN)
    )
    assert_allclose(plain, default, atol=1e-4)


def test_smooth_labels_of_a_head_are_copies_with_the_other_label(data):
    """Label smoothing by 0.2 in two classes: each sample has the other label with weight 0.1."""
    X, y, _ = data
    params = {"weight_decay": 0.02, "random_state": 0}
    smooth = ERMClassifier(criterion=SMOOTH, **params).fit(X, y)
    weight = np.repeat([0.9, 0.1], len(y))
    copies = ERMClassifier(**params)
    copies.fit(np.concatenate([X, X]), np.concatenate([y, 1 - y]), sample_weight=weight)
    assert_allclose(_parameters(smooth), _parameters(copies), atol=1e-4)
    assert smooth.history_["train_loss"][0] == pytest.approx(_smooth_loss(copies, X, y), rel=1e-5)


def test_a_head_of_a_loss_of_each_class_alone_is_two_logistic_regressions(data):
    """A loss that is not one of differences of logits needs an output for each class."""
    from sklearn.linear_model import LogisticRegression

    X, y, _ = data

    def one_against_rest(logits, y):
        target = F.one_hot(y, 2).to(logits)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)

    clf = ERMClassifier(criterion=one_against_rest, weight_decay=0.05, random_state=0).fit(X, y)
    # Mean loss plus decay / 2 * |w|^2 is scikit-learn's with C = 1 / (n * decay).
    own = LogisticRegression(C=1 / (len(y) * 0.05), tol=1e-8, max_iter=1000).fit(X, y)
    weight = clf.module_.weight.detach().numpy()
    assert_allclose(weight, np.concatenate([-own.coef_, own.coef_]), atol=1e-3)


def test_weights_of_classes_in_a_criterion(data):
    """A module that holds numbers: they move, and are converted for heads."""
    X, y, _ = data
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), reduction="none")
    sample_weight = np.where(y == 1, 3.0, 1.0)
    ours = ERMClassifier(criterion=weighted, weight_decay=0.1 * sample_weight.mean())
    theirs = ERMClassifier(weight_decay=0.1).fit(X, y, sample_weight=sample_weight)
    ours.fit(X, y, X_val=X[:9], y_val=y[:9])
    assert_allclose(_parameters(ours), _parameters(theirs), atol=1e-4)
    assert weighted.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "clf",
    [
        LastLayerRetrainer(),
        LastLayerRetrainer(mlp, max_epochs=0),
        NSFClassifier(),
        AutoRetrainer(),
    ],
)
def test_a_method_that_has_no_use_for_it_says_so(clf, data):
    with pytest.raises(ValueError, match=r"criterion has no effect.*criterion=None, or give"):
        _fit(clf.set_params(criterion=PLAIN), data)


# --------------------------------------------------------------------------------------
# What it must be


@pytest.mark.parametrize("module", [None, mlp])
@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (nn.CrossEntropyLoss(), r"gives shape \(\) for 3 samples.*reduction='none'"),
        (nn.CrossEntropyLoss, "is a class.*or an instance"),
        (lambda logits, y: None, "gives NoneType for 3 samples"),
        (lambda logits, y: logits, r"gives shape \(3, 2\)"),
        (lambda logits, y: y, "losses without a gradient"),
        (lambda logits, y: F.cross_entropy(logits.detach(), y, reduction="none"), "a gradient"),
        (nn.BCEWithLogitsLoss(reduction="none"), r"fails on logits of shape \(3, 2\).*Target"),
        (lambda logits: logits, "fails on logits .*argument"),
    ],
)
def test_what_is_no_loss_of_each_sample_is_refused(criterion, message, module, data):
    X, y, _ = data
    with pytest.raises(ValueError, match=rf"(?s)criterion=.*{message}"):
        ERMClassifier(module, criterion=criterion, **FAST).fit(X, y)


def test_a_name_is_refused_with_what_may_be_given(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="The 'criterion' parameter of ERMClassifier must be"):
        ERMClassifier(criterion="focal").fit(X, y)
    with pytest.raises(ValueError, match=r"criterion=.*reduction='none'"):
        SpuriousSamplePruner(criterion=nn.CrossEntropyLoss()).fit(X, y)


# --------------------------------------------------------------------------------------
# What goes along


def test_clone_pickle_and_files(data, tmp_path):
    X, y, _ = data
    clf = ERMClassifier(mlp, criterion=SMOOTH, **FAST)
    other = clone(clf)
    assert other.criterion is not SMOOTH
    assert other.criterion.label_smoothing == 0.2
    assert "criterion" in clf.get_params()
    assert_array_equal(_parameters(other.fit(X, y)), _parameters(clf.fit(X, y)))
    assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), clf.predict_proba(X))
    head = ERMClassifier(criterion=SMOOTH).fit(X, y)
    save_model(head, tmp_path / "head")
    with pytest.raises(ValueError, match="criterion"):
        load_model(tmp_path / "head")
    loaded = load_model(tmp_path / "head", criterion=SMOOTH)
    assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))
    assert loaded.criterion is SMOOTH


def test_a_module_that_is_passed_stays_as_it_is(data):
    X, y, _ = data

    class Temperature(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, logits, y):
            return F.cross_entropy(self.scale * logits, y, reduction="none")

    criterion = Temperature()
    before = copy.deepcopy(criterion.state_dict())
    ERMClassifier(mlp, criterion=criterion, **FAST).fit(X, y)
    assert torch.equal(criterion.scale, before["scale"])
    assert criterion.scale.requires_grad
    assert criterion.scale.grad is None


def test_another_criterion_is_another_run(data, tmp_path):
    """Also where its repr is the same, as that of cross-entropies of any label smoothing."""
    X, y, _ = data
    losses = [
        None,
        PLAIN,
        SMOOTH,
        nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]), reduction="none"),
        partial(F.cross_entropy, reduction="none"),
        partial(F.cross_entropy, reduction="none", label_smoothing=0.3),
    ]
    for n_files, criterion in enumerate(losses, start=1):
        for _ in range(2):
            clf = ERMClassifier(mlp, criterion=criterion, checkpoint_dir=tmp_path, **FAST)
            resumed = clf.fit(X, y)
            assert len(list(tmp_path.glob("*.pt"))) == n_files
        unbroken = ERMClassifier(mlp, criterion=criterion, **FAST).fit(X, y)
        assert_array_equal(_parameters(resumed), _parameters(unbroken))
