import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate

from skspurious.data import GroupedData
from skspurious.metrics import worst_group_scorer
from skspurious.model_selection import EveryGroupKFold, every_group_train_test_split

# Waterbirds' training set: 56 waterbirds on land among 4,795.
SIZES = [3498, 184, 56, 1057]
ORDER = np.random.default_rng(0).permutation(4795)
GROUP = np.repeat([0, 1, 2, 3], SIZES)[ORDER]
Y = GROUP // 2
X = np.zeros((4795, 1))

# A small set with a class that the groups do not contain.
SMALL_Y = np.tile([0, 1], 12)
SMALL_GROUP = np.repeat(["lake", "field"], 12)


def _test_counts(splitter, X, y, group, **keywords):
    """Samples of every group in each test fold."""
    return np.array([np.bincount(group[test]) for _, test in splitter.split(X, y, **keywords)])


# EveryGroupKFold


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n_splits", [2, 5, 56])
def test_every_group_k_fold_keeps_every_group_in_every_fold(n_splits, shuffle):
    splitter = EveryGroupKFold(n_splits, shuffle=shuffle, random_state=0 if shuffle else None)
    counts = _test_counts(splitter, X, Y, GROUP, sample_group=GROUP)
    assert counts.shape == (n_splits, 4)
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert_array_equal(counts.sum(axis=0), SIZES)
    assert counts.min() >= 1


def test_stratifying_by_class_alone_does_not_keep_every_group():
    """What the splitter is for: scikit-learn's own leaves the rare group out of a fold."""
    y, group = np.repeat([0, 1], 50), np.repeat([0, 1, 2], [46, 4, 50])
    by_class = [np.bincount(group[test])[1] for _, test in StratifiedKFold(2).split(y, y)]
    assert by_class == [0, 4]
    counts = _test_counts(EveryGroupKFold(2), y, y, group, sample_group=group)
    assert_array_equal(counts, [[23, 2, 25], [23, 2, 25]])


def test_every_group_k_fold_stratifies_by_class_too():
    splitter = EveryGroupKFold(3)
    for _, test in splitter.split(SMALL_Y, SMALL_Y, sample_group=SMALL_GROUP):
        cells, counts = np.unique(
            np.stack([SMALL_Y[test], SMALL_GROUP[test] == "lake"]), axis=1, return_counts=True
        )
        assert cells.shape == (2, 4)
        assert_array_equal(counts, 2)


def test_every_group_k_fold_is_a_partition():
    tests = []
    for train, test in EveryGroupKFold(5).split(X, Y, sample_group=GROUP):
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(4795))
        tests.append(test)
    assert_array_equal(np.sort(np.concatenate(tests)), np.arange(4795))


@pytest.mark.parametrize(
    "keywords",
    [
        {"groups": SMALL_GROUP},
        {"sample_group": pd.Series(SMALL_GROUP)},
        {"sample_group": np.stack([SMALL_GROUP, SMALL_GROUP], axis=1)},
        {"sample_group": np.where(SMALL_GROUP == "lake", 100, -3)},
        {"sample_group": [(g, 1) for g in SMALL_GROUP]},
    ],
    ids=["groups", "series", "two columns", "ids with gaps", "tuples"],
)
def test_every_group_k_fold_does_not_depend_on_how_groups_are_given(keywords):
    splitter = EveryGroupKFold(3)
    expected = list(splitter.split(GroupedData(SMALL_Y, SMALL_GROUP), SMALL_Y))
    for (train, test), (train_, test_) in zip(
        splitter.split(SMALL_Y, SMALL_Y, **keywords), expected, strict=True
    ):
        assert_array_equal(train, train_)
        assert_array_equal(test, test_)


def test_every_group_k_fold_explicit_groups_beat_carried_ones():
    carried = GroupedData(X, np.zeros(4795))
    counts = _test_counts(EveryGroupKFold(5), carried, Y, GROUP, sample_group=GROUP)
    assert counts[:, 2].min() == 11


def test_every_group_k_fold_takes_strings_as_classes_and_any_x():
    y = np.where(SMALL_Y == 1, "dog", "cat")
    paths = [f"{i}.jpg" for i in range(24)]
    assert len(list(EveryGroupKFold(2).split(paths, y, sample_group=SMALL_GROUP))) == 2
    frame = GroupedData(pd.DataFrame({"x": SMALL_Y}), SMALL_GROUP)
    assert len(list(EveryGroupKFold(2).split(frame, y))) == 2


def test_every_group_k_fold_warns_with_counts_of_small_groups():
    group = np.repeat(["lake", "field", "sea"], [14, 8, 2])
    with pytest.warns(UserWarning, match="fewer samples") as record:
        folds = list(EveryGroupKFold(3).split(SMALL_Y, SMALL_Y, sample_group=group))
    assert len(record) == 1
    assert str(record[0].message) == (
        "2 of 6 (class, group) pairs have fewer samples than n_splits=3 and are missing from some "
        "folds (class 0, group 'sea': 1, class 1, group 'sea': 1)."
    )
    for _, test in folds:
        assert {"lake", "field"} <= set(group[test])


def test_every_group_k_fold_same_seed_equal_two_seeds_differ(assert_global_rng_untouched):
    def tests(seed):
        splitter = EveryGroupKFold(5, shuffle=True, random_state=seed)
        return np.concatenate([t for _, t in splitter.split(X, Y, sample_group=GROUP)])

    with assert_global_rng_untouched():
        first, again, other = tests(0), tests(0), tests(1)
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_group_k_fold_in_a_search_on_grouped_data(routing):
    search = GridSearchCV(
        LogisticRegression(),
        {"C": [1]},
        scoring=worst_group_scorer,
        cv=EveryGroupKFold(4),
        error_score="raise",
    )
    search.fit(GroupedData(Y.reshape(-1, 1), GROUP), Y)
    assert search.n_splits_ == 4
    assert search.best_score_ == 1


@pytest.fixture(params=[False, True], ids=["routing_off", "routing_on"])
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def test_every_group_k_fold_gets_routed_groups():
    with sklearn.config_context(enable_metadata_routing=True):
        splitter = EveryGroupKFold(4)
        keywords = {
            "scoring": worst_group_scorer,
            "cv": splitter,
            "params": {"sample_group": GROUP},
        }
        result = cross_validate(
            LogisticRegression(), Y.reshape(-1, 1), Y, return_indices=True, **keywords
        )
        search = GridSearchCV(
            LogisticRegression(), {"C": [1]}, scoring=worst_group_scorer, cv=EveryGroupKFold(4)
        ).fit(Y.reshape(-1, 1), Y, sample_group=GROUP)
    assert [np.sum(GROUP[test] == 2) for test in result["indices"]["test"]] == [14] * 4
    assert search.best_score_ == 1


def test_every_group_k_fold_gets_groups_without_routing_as_groups():
    scores = cross_val_score(
        LogisticRegression(), Y.reshape(-1, 1), Y, groups=GROUP, cv=EveryGroupKFold(4)
    )
    assert len(scores) == 4
    search = GridSearchCV(LogisticRegression(), {"C": [1]}, cv=EveryGroupKFold(4))
    assert search.fit(Y.reshape(-1, 1), Y, groups=GROUP).best_score_ == 1


def test_every_group_k_fold_request_can_be_renamed():
    with sklearn.config_context(enable_metadata_routing=True):
        splitter = EveryGroupKFold(4).set_split_request(sample_group="background")
        keywords = {"cv": splitter, "params": {"background": GROUP}}
        assert len(cross_val_score(LogisticRegression(), Y.reshape(-1, 1), Y, **keywords)) == 4


def test_every_group_k_fold_pickles_and_clones():
    splitter = EveryGroupKFold(3, shuffle=True, random_state=7)
    assert repr(pickle.loads(pickle.dumps(splitter))) == repr(splitter)
    shown = "EveryGroupKFold(n_repeats=1, n_splits=3, random_state=7, shuffle=True)"
    assert repr(splitter) == shown
    assert repr(clone(splitter, safe=False)) == repr(splitter)
    assert splitter.get_n_splits(X, Y, GROUP) == 3


def test_every_group_k_fold_without_groups_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"EveryGroupKFold has no groups. Carry them in GroupedData"
    ):
        next(EveryGroupKFold().split(X, Y))


def test_every_group_k_fold_refuses_bad_arguments():
    with pytest.raises(ValueError, match="Give sample_group or groups, not both"):
        next(EveryGroupKFold().split(X, Y, GROUP, sample_group=GROUP))
    with pytest.raises(ValueError, match="needs y"):
        next(EveryGroupKFold().split(X, sample_group=GROUP))
    with pytest.raises(ValueError, match="sample_group has 3 rows for 4795 samples"):
        next(EveryGroupKFold().split(X, Y, sample_group=GROUP[:3]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(EveryGroupKFold().split(X[:5], Y, sample_group=GROUP))
    with pytest.raises(ValueError, match="n_splits=7 is greater than the size of every"):
        next(EveryGroupKFold(7).split(SMALL_Y, SMALL_Y, sample_group=SMALL_GROUP))
    with pytest.raises(ValueError, match="continuous"):
        next(EveryGroupKFold().split(X, Y + 0.5, sample_group=GROUP))
    with pytest.raises(ValueError, match="n_splits=1"):
        EveryGroupKFold(1)
    with pytest.raises(ValueError, match="random_state"):
        EveryGroupKFold(random_state=0)


# every_group_train_test_split


def test_every_group_train_test_split_keeps_every_group_on_both_sides():
    parts = every_group_train_test_split(
        X, Y, GROUP, sample_group=GROUP, test_size=0.01, random_state=0
    )
    X_train, X_test, y_train, y_test, g_train, g_test = parts
    # 0.01 of 3498, 184, 56, 1057 is 34.98, 1.84, 0.56, 10.57: 48 in all, at least 1 each.
    assert_array_equal(np.bincount(g_test), [35, 2, 1, 10])
    assert_array_equal(np.bincount(g_train) + np.bincount(g_test), SIZES)
    assert len(X_train) == len(y_train) == 4747
    assert len(X_test) == len(y_test) == 48
    assert_array_equal(y_test, g_test // 2)


def test_every_group_train_test_split_leaves_single_samples_in_training():
    y, group = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 1, 1])
    _, _, y_train, y_test = every_group_train_test_split(y, y, sample_group=group, test_size=0.5)
    assert sorted(y_train) == [0, 0, 1]
    assert sorted(y_test) == [0, 0]


def test_every_group_train_test_split_keeps_kinds_and_alignment():
    frame = pd.DataFrame({"x": np.arange(24)}, index=np.arange(24) + 100)
    data = GroupedData(frame, SMALL_GROUP)
    paths = [f"{i}.jpg" for i in range(24)]
    train, test, y_train, y_test, paths_train, paths_test = every_group_train_test_split(
        data, pd.Series(SMALL_Y), paths, random_state=0
    )
    assert isinstance(train, GroupedData)
    assert isinstance(paths_test, list)
    assert isinstance(y_train, pd.Series)
    assert_array_equal(test.data["x"] % 2, y_test)
    assert_array_equal(test.sample_group, SMALL_GROUP[test.data["x"]])
    assert paths_test == [f"{i}.jpg" for i in test.data["x"]]
    assert sorted([*train.data["x"], *test.data["x"]]) == list(range(24))
    assert len(paths_train) == len(y_train) == len(train)


def test_every_group_train_test_split_same_seed_equal_two_seeds_differ(
    assert_global_rng_untouched,
):
    def test_rows(seed):
        rows = np.arange(4795)
        parts = every_group_train_test_split(rows, Y, sample_group=GROUP, random_state=seed)
        return parts[1]

    with assert_global_rng_untouched():
        first, again, other = test_rows(0), test_rows(0), test_rows(1)
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_group_train_test_split_refuses_bad_arguments():
    with pytest.raises(ValueError, match="every_group_train_test_split has no groups"):
        every_group_train_test_split(X, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        every_group_train_test_split(X, Y, Y[:3], sample_group=GROUP)
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
        every_group_train_test_split(X, Y, sample_group=GROUP, test_size=100)


def test_repeats_deal_all_samples_out_again_in_another_way():
    once = EveryGroupKFold(4, shuffle=True, random_state=3)
    twice = EveryGroupKFold(4, shuffle=True, random_state=3, n_repeats=2)
    assert twice.get_n_splits() == 8
    tests = [test for _, test in twice.split(X, Y, sample_group=GROUP)]
    assert len(tests) == 8
    for repeat in (tests[:4], tests[4:]):
        assert_array_equal(np.sort(np.concatenate(repeat)), np.arange(len(Y)))
        assert all(np.bincount(GROUP[test], minlength=4).min() >= 14 for test in repeat)
    for (_, test), first in zip(once.split(X, Y, sample_group=GROUP), tests[:4], strict=True):
        assert_array_equal(test, first)
    assert not any(np.array_equal(a, b) for a in tests[:4] for b in tests[4:])
    again = [test for _, test in twice.split(X, Y, sample_group=GROUP)]
    for a, b in zip(tests, again, strict=True):
        assert_array_equal(a, b)


def test_every_repeat_is_a_deal_of_its_own_and_the_first_that_without_repeats():
    X, y, group = np.zeros((60, 1)), np.arange(60) % 2, np.arange(60) // 2 % 3

    def deals(n_repeats, seed):
        cv = EveryGroupKFold(3, shuffle=True, random_state=seed, n_repeats=n_repeats)
        tests = [tuple(test) for _, test in cv.split(X, y, sample_group=group)]
        return [frozenset(tests[k : k + 3]) for k in range(0, len(tests), 3)]

    plain = StratifiedKFold(3, shuffle=True, random_state=0).split(X, 3 * y + group)
    assert deals(4, 0)[:1] == deals(1, 0) == [frozenset(tuple(test) for _, test in plain)]
    assert deals(4, 0)[:2] == deals(2, 0)
    assert len({*deals(4, 0), *deals(4, 1)}) == 8  # no repeat is one of another, nor of a seed


@pytest.mark.parametrize("n_repeats", [0, 1.5])
def test_repeats_must_be_a_positive_number(n_repeats):
    with pytest.raises(ValueError, match="must be a whole number, at least 1"):
        EveryGroupKFold(n_repeats=n_repeats, shuffle=True)
    with pytest.raises(ValueError, match="set shuffle=True"):
        EveryGroupKFold(n_repeats=2)
