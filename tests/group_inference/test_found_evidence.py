"""evidence_ of fitted inferrers: levels, laws, what is kept, what is printed, and the warning."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from skspurious import (
    AutoRetrainer,
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    LastLayerRetrainer,
    TorchFeatureExtractor,
    XRMClassifier,
)
from skspurious.extend import GroupMethod
from skspurious.group_inference import (
    ErrorGroups,
    KMeansGroups,
    SemiSupervisedGroupInferrer,
    SpuriousGroupInferrer,
    ViewJury,
    evidence_of,
)
from skspurious.pipeline import make_pipeline

CLUSTERS = SpuriousGroupInferrer(
    KMeansGroups(n_clusters=2, n_init=1), normalize=False, random_state=0
)


def make_data(strength, seed=0, n=300, noise=0.4):
    """The class in the first feature, in the second the ground, which agrees with it as often."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    sand = np.where(rng.random(n) < strength, y, 1 - y)
    X = rng.normal(size=(n, 6))
    X[:, 0] = y + noise * X[:, 0]
    X[:, 1] = 2 * sand + 0.2 * X[:, 1]
    return X, y, sand


def known(sand, n=None):
    """The attribute as labels, known of the first n samples."""
    return np.where(np.arange(len(sand)) < (n or len(sand)), sand.astype(object), None)


def jury(**params):
    return ViewJury({"ground": [1]}, random_state=0, **params)


def figures_of(evidence):
    return [value for key, value in evidence.figures.items() if key != "name"]


# ------------------------------------------------------------------------------- levels


@pytest.mark.parametrize(("strength", "level"), [(0.5, "none"), (0.9, "strong")])
def test_levels_follow_what_was_planted(strength, level):
    X, y, sand = make_data(strength)
    few = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known(sand, 100))
    assert few.evidence_.level == level
    assert jury().fit(X, y).evidence_.level == level
    assert jury(clean=[0, 1, 2]).fit(X, y).evidence_.level == level
    beside = np.concatenate([X[:, [1]], X], axis=1)
    probe = SpuriousGroupInferrer(ErrorGroups(probe=6), random_state=0).fit(beside, y)
    assert probe.evidence_.level == level


def test_the_clean_sample_decides_what_a_head_can_follow():
    X, y, _ = make_data(0.9)
    blind = jury(clean=[0]).fit(X, y)
    assert blind.evidence_.level == "none"
    assert evidence_of(blind, X, y, n_permutations=39).level == "none"


@pytest.mark.parametrize("method", ["error", "xrm", "eiil", "dispersion"])
def test_errors_are_no_evidence(method):
    X, y, _ = make_data(0.9)
    evidence = SpuriousGroupInferrer(method, random_state=0).fit(X, y).evidence_
    assert (evidence.level, evidence.figures) == ("none", {})
    assert evidence.reason.startswith("made of errors")


def test_errors_of_twin_networks_are_no_evidence():
    X, y, _ = make_data(0.9, n=40)
    clf = XRMClassifier(max_epochs=1, lr=0.1, random_state=0).fit(X, y)
    assert clf.group_inferrer_.evidence_.reason.startswith("made of errors")


class Halves(GroupMethod):
    """A method of somebody else."""

    def find(self, X, code, context):
        pass

    def assign(self, X, k):
        return (X[:, 2] > 0).astype(int)


@pytest.mark.parametrize("method", ["kmeans", KMeansGroups(n_clusters=2), Halves()])
def test_parts_of_a_class_have_figures_and_are_no_evidence(method):
    X, y, _ = make_data(0.9)
    evidence = SpuriousGroupInferrer(method, random_state=0).fit(X, y).evidence_
    assert evidence.level == "none"
    assert evidence.reason.startswith("parts of a class")
    assert "p_value" not in evidence.figures
    assert evidence.figures["recovered"] <= evidence.figures["recovered_high"]


def test_what_cannot_be_asked_is_said():
    X, y, sand = make_data(0.9, n=60)
    one_class = clone(CLUSTERS).fit(X, np.zeros(60))
    assert one_class.evidence_.reason == "there is one class"
    whole = SpuriousGroupInferrer(KMeansGroups(n_clusters=1), random_state=0).fit(X, y)
    assert whole.evidence_.level == "none"
    with pytest.warns(UserWarning, match="one known value"):
        unknown = SemiSupervisedGroupInferrer(if_unknown="class").fit(
            X, y, sample_attribute=np.zeros(60)
        )
    assert "nothing says the class" in unknown.evidence_.reason
    texts = [f"{'sand' if s else 'grass'} {i}" for i, s in enumerate(sand)]
    view = make_pipeline(CountVectorizer(), MultinomialNB())
    heard = ViewJury({"words": view}, random_state=0).fit(texts, y)
    assert heard.evidence_.reason.startswith("not tested: nothing makes numbers")


def test_it_is_the_test_of_evidence_of():
    X, y, sand = make_data(0.7)
    evidence = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known(sand)).evidence_
    expected = evidence_of(sand, X, y, n_permutations=39)
    assert figures_of(evidence) == pytest.approx(figures_of(expected))
    ground = jury().fit(X, y)
    expected = evidence_of(ground, X, y, n_permutations=39)  # the only view is all that the jury is
    assert figures_of(ground.evidence_) == pytest.approx(figures_of(expected))


def test_alarms_without_a_shortcut_are_rare_and_a_shortcut_is_found():
    found = {}
    for strength, n_sets in ((0.5, 30), (0.9, 6)):
        levels = []
        for seed in range(n_sets):
            X, y, sand = make_data(strength, seed, n=150)
            inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known(sand))
            levels.append(inferrer.evidence_.level)
        found[strength] = np.mean([level != "none" for level in levels])
    assert found[0.5] <= 0.1  # 0.05 in the mean; of 30 at most 3 in 94 %
    assert found[0.9] >= 0.75


# --------------------------------------------------------------------------------- laws


def test_order_and_names_have_no_influence():
    X, y, sand = make_data(0.8)
    evidence = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known(sand)).evidence_
    order = np.random.default_rng(1).permutation(len(y))
    place = np.where(sand, "sand", "grass")
    name = np.where(y, "camel", "cow")
    other = SemiSupervisedGroupInferrer().fit(
        X[order], name[order], sample_attribute=known(place)[order]
    )
    assert figures_of(other.evidence_) == pytest.approx(figures_of(evidence), abs=1e-9)
    assert figures_of(jury().fit(X[order], name[order]).evidence_) == pytest.approx(
        figures_of(jury().fit(X, y).evidence_), abs=1e-9
    )


def test_of_many_samples_a_part_is_kept_until_it_is_asked_for():
    X, y, sand = make_data(0.8, n=6000)
    X = np.concatenate([X, np.random.default_rng(2).normal(size=(6000, 80))], axis=1)
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known(sand, 120))
    kept = inferrer._evidence
    assert kept.Z.shape == (2000, 64)
    assert kept.code.mean() == pytest.approx(y.mean(), abs=1e-3)
    before = pickle.dumps(inferrer)
    assert inferrer.evidence_.level != "none"
    assert len(pickle.dumps(inferrer)) < len(before) - kept.Z.nbytes
    assert pickle.loads(before).evidence_ == inferrer.evidence_


# ----------------------------------------------------------------------------- printing


def test_a_fitted_inferrer_says_it_and_an_unfitted_one_is_as_it_was():
    X, y, _ = make_data(0.9)
    unfitted = jury()
    assert not hasattr(unfitted, "evidence_")
    assert repr(unfitted) == "ViewJury(random_state=0, views={'ground': [1]})"
    fitted = clone(unfitted).fit(X, y)
    first, second = repr(fitted).splitlines()
    assert first == repr(unfitted)
    assert second == repr(fitted.evidence_)
    assert second.startswith("Evidence: strong (balancing the sides of 'jury' recovers ")
    assert repr(clone(fitted)) == first
    line = "<b>Evidence: strong</b>"
    assert line in fitted._repr_html_()
    assert line in fitted._repr_mimebundle_()["text/html"]
    assert "Evidence" not in unfitted._repr_html_()
    assert "Evidence" not in unfitted._repr_mimebundle_()["text/html"]
    with config_context(display="text"):
        assert list(fitted._repr_mimebundle_()) == ["text/plain"]


def test_in_a_pipeline_parameters_are_printed_and_broken_into_lines():
    X, y, _ = make_data(0.9, n=60)
    long = SpuriousGroupInferrer(KMeansGroups(n_clusters=2, n_init=7), n_jobs=2, random_state=0)
    text = repr(make_pipeline(long).fit(X, y))
    assert "Evidence" not in text
    assert max(map(len, text.splitlines())) < 80


# ------------------------------------------------------------------------------ warning

NOTHING = make_data(0.5, n=1000, noise=0.6)[:2]
SHORTCUT = make_data(0.9, n=1000, noise=0.6)[:2]
HEAD = {"random_state": 0}


@pytest.mark.parametrize(
    "clf",
    [
        GroupDROClassifier(group_inferrer=CLUSTERS, **HEAD),
        BalancedRetrainer(group_inferrer=CLUSTERS, **HEAD),
        LastLayerRetrainer(group_inferrer=CLUSTERS, C=1.0, n_draws=1, **HEAD),
        make_pipeline(clone(CLUSTERS), BalancedRetrainer(**HEAD)),
    ],
)
def test_balancing_groups_of_nothing_warns_with_figures_and_remedies(clf):
    with pytest.warns(UserWarning, match="balances groups that rest on nothing") as caught:
        clf.fit(*NOTHING)
    (message,) = {str(w.message) for w in caught}
    for part in ("SpuriousGroupInferrer", "errs on 0.1", "recovers", "ViewJury", "AutoRetrainer"):
        assert part in message


def silent(clf, X, y, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return clf.fit(X, y, **params)


@pytest.mark.parametrize(
    "clf",
    [
        ERMClassifier(group_inferrer=CLUSTERS, **HEAD),  # groups are for reports
        BalancedRetrainer(by="class", group_inferrer=CLUSTERS, **HEAD),
        BalancedRetrainer(group_inferrer=SpuriousGroupInferrer("error"), **HEAD),
        BalancedRetrainer(group_inferrer=jury(), **HEAD),  # no view has a say: classes are groups
        AutoRetrainer(views={"g": [1]}, **HEAD),
    ],
)
def test_what_balances_no_groups_or_cannot_tell_is_silent(clf):
    silent(clf, *NOTHING)


def test_groups_that_rest_on_something_are_balanced_in_silence():
    silent(BalancedRetrainer(group_inferrer=CLUSTERS, **HEAD), *SHORTCUT)
    silent(BalancedRetrainer(group_inferrer=jury(), **HEAD), *SHORTCUT)


def test_few_samples_and_few_errors_are_too_little_to_tell():
    X, y = NOTHING
    silent(BalancedRetrainer(group_inferrer=CLUSTERS, **HEAD), X[:80], y[:80])
    easy = make_data(0.5, n=1000, noise=0.1)[:2]
    silent(BalancedRetrainer(group_inferrer=CLUSTERS, **HEAD), *easy)


def test_labels_are_something():
    X, y, sand = make_data(0.5, n=1000, noise=0.6)
    clf = BalancedRetrainer(group_inferrer=SemiSupervisedGroupInferrer(), **HEAD)
    silent(clf, GroupedData(X, sample_attribute=known(sand, 300)), y)
    assert clf.group_inferrer_.evidence_of_nothing() is not None


def test_what_was_fitted_to_the_labels_says_nothing_of_the_same_samples():
    extractor = TorchFeatureExtractor(ERMClassifier(**HEAD), output="logits")
    inferrer = make_pipeline(extractor, clone(CLUSTERS))
    clf = silent(BalancedRetrainer(group_inferrer=inferrer, **HEAD), *NOTHING)
    assert clf.group_inferrer_[-1].evidence_of_nothing() is not None
