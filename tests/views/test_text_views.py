"""Views of texts: words in disorder, a few words, one field."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from skspurious import GroupedData
from skspurious.views import KeepWords, SelectFields, ShuffleWords

TEXTS = [f"one two  three four\tfive six seven {i}" for i in range(20)]
FILMS = ["A bad film", "A good film!", "bad, very bad", "Very good.", "a bad end", "Good"]
IS_GOOD = [0, 1, 0, 1, 0, 1]


# --------------------------------------------------------------------------------------
# ShuffleWords


def test_words_are_permuted_by_the_seed_and_the_text():
    shuffled = ShuffleWords().transform(TEXTS)
    for before, after in zip(TEXTS, shuffled, strict=True):
        assert sorted(before.split()) == sorted(after.split())
    words = ["one", "two", "three", "four"]
    orders = {tuple(text.split().index(word) for word in words) for text in shuffled}
    assert len(orders) > 10
    assert ShuffleWords().transform(TEXTS[::-3]) == shuffled[::-3]
    assert ShuffleWords().fit_transform([TEXTS[5]] * 2) == [shuffled[5]] * 2
    assert ShuffleWords(random_state=1).transform(TEXTS) != shuffled
    assert ShuffleWords().transform(["", " one ", "\udcff"]) == ["", "one", "\udcff"]


def test_words_that_stay_together():
    for text in ShuffleWords(3).transform([" ".join(map(str, range(11)))] * 1):
        words = [int(word) for word in text.split()]
        starts = [i for i in range(11) if words[i] % 3 == 0]
        for i in starts:
            assert words[i : i + 3] == [w for w in range(words[i], words[i] + 3) if w < 11]
        assert sorted(words) == list(range(11))


# --------------------------------------------------------------------------------------
# KeepWords


def test_words_of_a_list():
    keep = KeepWords(["Good", "bad"])
    expected = ["bad", "good", "bad bad", "good", "bad", "good"]
    assert keep.transform(FILMS) == expected
    assert keep.fit(FILMS).transform(FILMS) == keep.fit_transform(FILMS, IS_GOOD) == expected
    assert keep.words_ == ["good", "bad"]
    assert KeepWords([]).transform(FILMS) == [""] * 6
    assert KeepWords(["goo"]).transform(["goodness goo"]) == ["goo"]


def test_the_words_most_tied_to_the_label():
    keep = KeepWords(2).fit(FILMS, IS_GOOD)
    assert keep.words_ == ["bad", "good"]  # each stands in all of its class and in no other
    assert keep.transform(["Good end", "no word of them"]) == ["good", ""]
    named = KeepWords(2).fit(FILMS, np.array(["no", "yes"])[IS_GOOD])
    assert named.words_ == keep.words_
    assert KeepWords(1000).fit(FILMS, IS_GOOD).words_[:2] == keep.words_
    assert KeepWords(2).fit(["", "!"], [0, 1]).words_ == []


def test_out_of_fold_words_are_chosen_on_the_other_half():
    """A word that stands in one text alone is never kept there, though it names the class."""
    texts = [f"{'xy'[i % 2]} unique{i}" for i in range(40)]
    y = np.arange(40) % 2
    keep = KeepWords(42)
    assert keep.fit(texts, y).transform(texts) == texts
    assert keep.fit_transform(texts, y) == [text[0] for text in texts]
    order = np.random.default_rng(0).permutation(40)
    again = keep.fit_transform([texts[i] for i in order], y[order])
    assert again == [texts[i][0] for i in order]


def _draw(seed):
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"w{j}" for j in rng.integers(1000, size=30)) for _ in range(300)]
    return texts, rng.permutation(np.arange(300) % 2)


def _right(words, y):
    model = make_pipeline(CountVectorizer(), LogisticRegression())
    return balanced_accuracy_score(y, cross_val_predict(model, words, y, cv=5))


def test_learned_words_do_not_leak_random_labels():
    """Over draws, a classifier of the words is right by chance; of words seen whole it is not."""
    draws = [_draw(seed) for seed in range(8)]
    out_of_fold = [_right(KeepWords(20).fit_transform(t, y), y) for t, y in draws]
    seen = [_right(KeepWords(20).fit(t, y).transform(t), y) for t, y in draws]
    interval = 3 * 0.5 / np.sqrt(8 * 300)
    assert abs(np.mean(out_of_fold) - 0.5) < interval
    assert np.mean(seen) > 0.5 + 2 * interval  # or the test could not fail


def test_order_of_rows_has_no_influence_on_learned_words():
    texts, y = _draw(0)
    kept = KeepWords(20).fit_transform(texts, y)
    order = np.random.default_rng(1).permutation(300)
    again = KeepWords(20).fit_transform([texts[i] for i in order], y[order])
    assert again == [kept[i] for i in order]


def test_errors_of_words():
    with pytest.raises(ValueError, match=r"words=20 is the number of words .* fit needs y"):
        KeepWords().fit(FILMS)
    with pytest.raises(NotFittedError):
        KeepWords().transform(FILMS)
    with pytest.raises(ValueError, match="'words' parameter of KeepWords"):
        KeepWords(0).fit(FILMS, IS_GOOD)
    with pytest.raises(ValueError, match="'n_together' parameter of ShuffleWords"):
        ShuffleWords(0).transform(FILMS)


# --------------------------------------------------------------------------------------
# Fields


PAIRS = [("p0", "h0"), ("p1", "h1")]
DICTS = [{"premise": p, "hypothesis": h, "n": 1} for p, h in PAIRS]
FRAME = pd.DataFrame(DICTS, index=[7, 9])


def test_fields_of_tuples_dicts_and_columns():
    for X, first, second in ((PAIRS, 0, 1), (DICTS, "premise", "hypothesis"), (PAIRS, -2, -1)):
        assert SelectFields(second).transform(X) == ["h0", "h1"]
        assert SelectFields([second, first]).fit_transform(X) == ["h0 p0", "h1 p1"]
        assert SelectFields([first], separator="|").transform(X) == ["p0", "p1"]
    series = SelectFields("hypothesis").transform(FRAME)
    pd.testing.assert_series_equal(series, FRAME["hypothesis"], check_dtype=False)
    joined = SelectFields(["premise", "hypothesis"], separator="|").transform(FRAME)
    assert joined.to_dict() == {7: "p0|h0", 9: "p1|h1"}


class HuggingFaceLike:
    """Columns by name, and rows by number, as a Hugging Face dataset has them."""

    column_names = ("premise", "hypothesis")

    def __len__(self):
        return 2

    def __getitem__(self, key):
        return [row[key] for row in DICTS] if isinstance(key, str) else DICTS[key]


def test_fields_of_a_hugging_face_dataset():
    assert SelectFields("hypothesis").transform(HuggingFaceLike()) == ["h0", "h1"]
    with pytest.raises(ValueError, match="has the columns"):
        SelectFields("label").transform(HuggingFaceLike())


@pytest.mark.parametrize(
    ("fields", "X", "message"),
    [
        (2, PAIRS, r"X\[0\] = \('p0', 'h0'\) has no field 2"),
        ("label", DICTS, r"has no field 'label'"),
        ("label", FRAME, r"fields has 'label', but X has the columns \['premise'"),
        ("n", DICTS, r"field 'n' of X\[0\] is 1, which is no text"),
        ([], PAIRS, "fields is empty"),
        (0, ["text"], r"X\[0\] = 'text' has no field 0"),
    ],
)
def test_errors_of_fields(fields, X, message):
    with pytest.raises(ValueError, match=message):
        SelectFields(fields).transform(X)


# --------------------------------------------------------------------------------------
# Containers


@pytest.mark.parametrize("view", [ShuffleWords(), KeepWords(["two", "one"])])
def test_the_container_stays(view):
    expected = view.transform(TEXTS)
    assert isinstance(expected, list)
    array = view.transform(np.array(TEXTS))
    assert_array_equal(array, np.array(expected, dtype=object))
    series = pd.Series(TEXTS, index=range(5, 25), name="text")
    pd.testing.assert_series_equal(
        view.transform(series), pd.Series(expected, index=range(5, 25), name="text")
    )
    assert series.tolist() == TEXTS
    carried = view.fit_transform(GroupedData(TEXTS, np.arange(20)))
    assert carried.data == expected
    assert carried.sample_group.tolist() == list(range(20))
    assert view.transform([]) == []


@pytest.mark.parametrize("view", [ShuffleWords(), KeepWords(["a"]), KeepWords(3)])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (FRAME, "X is a DataFrame; .* takes texts.*SelectFields"),
        (PAIRS, r"X is a list; .*SelectFields"),
        (np.zeros((6, 2)), "X is a ndarray; .* takes texts"),
        (["a", 3], r"X\[1\] is 3; .* takes texts"),
        ("a text", "X is one text"),
    ],
)
def test_what_is_no_text_is_refused(view, X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        view.fit(X, [0, 1]).transform(X)
