"""Evidence of groups: which are tested, what is never tested, and what it says."""

import json

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline

from skspurious.group_inference import (
    ErrorGroups,
    Evidence,
    SemiSupervisedGroupInferrer,
    SpuriousGroupInferrer,
    ViewJury,
    evidence_of,
)
from skspurious.group_inference._evidence import (
    MADE_OF_CLUSTERS,
    MADE_OF_ERRORS,
    nuisance_of_groups,
    why_not_tested,
)
from skspurious.views import ImageStatistics, MaskCenter


def make_data(strength, seed=0, n=300):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    sand = np.where(rng.random(n) < strength, y, 1 - y)
    X = np.stack([y + 0.4 * rng.normal(size=n), sand + 0.2 * rng.normal(size=n)], axis=1)
    return X, y, sand


def test_an_attribute_crossed_with_the_class_is_the_same_evidence():
    X, y, sand = make_data(0.9)
    of_attribute = evidence_of(sand, X, y)
    of_groups = evidence_of(np.stack([y, sand], axis=1), X, y)
    of_names = evidence_of(np.where(sand, "sand", "grass"), X, np.where(y, "cow", "camel"))
    assert of_attribute.level == of_groups.level == of_names.level == "strong"
    keys = ["recovered", "lost", "standard_error", "p_value"]
    for other in (of_groups, of_names):
        assert [other.figures[k] for k in keys] == pytest.approx(
            [of_attribute.figures[k] for k in keys]
        )


def test_groups_within_the_classes_say_the_class_by_their_largest_or_first():
    y = np.array([0, 0, 0, 1, 1, 1])
    group = np.array([0, 1, 1, 2, 3, 3])
    half = np.array([0.0, 1.0])
    by_size = nuisance_of_groups(group, y)
    by_order = nuisance_of_groups(group, y, first_is_right=True)
    np.testing.assert_array_equal(by_size.argmax(axis=1), [1, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(by_order.argmax(axis=1), [0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(nuisance_of_groups(group % 2, y)[:2], [half[::-1], half])


def test_groups_made_of_errors_are_never_tested():
    X, y, _ = make_data(0.95)
    evidence = evidence_of(SpuriousGroupInferrer("error").fit(X, y), X, y)
    assert evidence.level == "none"
    assert evidence.reason.startswith("made of errors")
    assert evidence.figures == {}


GROUND = ColumnTransformer([("ground", "passthrough", [1])])


@pytest.mark.parametrize(
    ("inferrer", "expected"),
    [
        (SpuriousGroupInferrer("error"), MADE_OF_ERRORS),
        (SpuriousGroupInferrer("xrm"), MADE_OF_ERRORS),
        (SpuriousGroupInferrer("eiil"), MADE_OF_ERRORS),
        (SpuriousGroupInferrer("dispersion"), MADE_OF_ERRORS),
        (SpuriousGroupInferrer(ErrorGroups()), MADE_OF_ERRORS),
        (make_pipeline("passthrough", SpuriousGroupInferrer("error")), MADE_OF_ERRORS),
        (SpuriousGroupInferrer("kmeans"), MADE_OF_CLUSTERS),
        (make_pipeline(GROUND, SpuriousGroupInferrer("kmeans")), MADE_OF_CLUSTERS),
        (SpuriousGroupInferrer(ErrorGroups(probe=1)), ""),
        (make_pipeline(MaskCenter(), SpuriousGroupInferrer("error")), ""),
        (make_pipeline(GROUND, SpuriousGroupInferrer("error")), ""),
        (ViewJury({"ground": [1]}), ""),
        (SemiSupervisedGroupInferrer(), ""),
    ],
)
def test_errors_and_clusters_are_no_evidence_and_errors_on_a_view_are(inferrer, expected):
    assert why_not_tested(inferrer) == expected


def test_errors_on_a_view_are_evidence():
    X, y, _ = make_data(0.9)
    inferrer = make_pipeline(GROUND, SpuriousGroupInferrer("error", random_state=0)).fit(X, y)
    assert evidence_of(inferrer, X, y).level == "strong"


def test_a_jury_is_heard_without_its_clean_sample():
    X, y, _ = make_data(0.9)
    jury = ViewJury({"ground": [1]}, clean=[0, 1], random_state=0).fit(X, y)
    alone = ViewJury({"ground": [1]}, random_state=0).fit(X, y)
    assert evidence_of(jury, X, y).figures["name"] == "ground"
    assert evidence_of(jury, X, y) == evidence_of(alone, X, y)
    views = ViewJury({"ground": [1], "all": [0, 1]}, random_state=0).fit(X, y)
    assert evidence_of(views, X, y).figures["name"] in ("ground", "all", "jury")


def test_the_clean_sample_alone_is_no_view():
    X, y, _ = make_data(0.9)
    jury = ViewJury({}, clean=[0], random_state=0).fit(X, y)
    assert evidence_of(jury, X, y).level == "none"


def test_pictures_are_taken_as_the_clean_sample_is():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    X = rng.random((120, 3, 8, 8)).astype(np.float32)
    X[:, 2] += np.where(rng.random(120) < 0.9, y, 1 - y)[:, None, None]
    views = {"border": ImageStatistics(["border"])}
    clean = ImageStatistics(["border", "colours"])
    jury = ViewJury(views, clean=clean, random_state=0).fit(X, y)
    Z = jury.judges_[1].transformer_.transform(X)
    assert evidence_of(jury, X, y) == evidence_of(jury, Z, y)


def test_levels_follow_the_figures():
    X, y, sand = make_data(0.9)
    evidence = evidence_of(sand, X, y)
    assert evidence.figures["p_value"] == 0.01
    assert evidence.figures["recovered"] >= 0.05
    assert evidence_of(sand, X, y, level=0.005).level == "none"


def test_it_says_what_it_is():
    X, y, sand = make_data(0.9)
    evidence = evidence_of(sand, X, y)
    assert repr(evidence).startswith("Evidence: strong (balancing the sides of 'groups' recovers ")
    assert "<b>Evidence: strong</b>" in evidence._repr_html_()
    assert "&lt;i&gt;" in Evidence("none", "<i>")._repr_html_()
    assert json.loads(json.dumps(evidence.to_dict()))["figures"]["p_value"] == 0.01


def test_lengths_must_agree():
    X, y, sand = make_data(0.9, n=50)
    with pytest.raises(ValueError, match="groups has 49 rows for 50 samples"):
        evidence_of(sand[1:], X, y)
