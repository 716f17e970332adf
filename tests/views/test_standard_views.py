"""The standard set for each kind of samples, TextStatistics, and the edges of ImageStatistics."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_pil_image

from skspurious import GroupedData
from skspurious.views import ImageStatistics, PatchFeatures, TextStatistics, standard_views

PICTURES = ["border", "colours", "edges", "sharpness", "blocks", "spectrum", "mask", "shuffle"]
PAIRS = [("one two", "three four"), ("five six", "seven eight")]


def png_files(folder, n=2):
    paths = [folder / f"{i}.png" for i in range(n)]
    for path in paths:
        to_pil_image(torch.zeros(3, 9, 9)).save(path)
    return paths


@pytest.mark.parametrize(
    ("X", "names"),
    [
        (np.zeros((4, 3, 8, 8)), PICTURES),
        (np.zeros((4, 8, 8), dtype=np.uint8), PICTURES),
        (torch.zeros(4, 3, 8, 8), PICTURES),
        (TensorDataset(torch.zeros(4, 3, 8, 8)), PICTURES),
        (["a.png", "b.png"], PICTURES),
        (["a good one", "a bad one"], ["words", "style"]),
        (np.array(["a good one", "a bad one"]), ["words", "style"]),
        (pd.Series(["a good one", "a bad one"]), ["words", "style"]),
        (PAIRS, ["field 0", "field 1"]),
        ([{"p": p, "h": h} for p, h in PAIRS], ["field p", "field h"]),
        (pd.DataFrame(PAIRS, columns=["p", "h"]), ["field p", "field h"]),
        (np.zeros((9, 3)), ["column 0", "column 1", "column 2"]),
        ([[1, 2], [3, 4]], ["column 0", "column 1"]),
        (torch.zeros(9, 2), ["column 0", "column 1"]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), ["column a", "column b"]),
        (pd.DataFrame(np.zeros((9, 2)), columns=[7, 5]), ["column 7", "column 5"]),
        (np.zeros((90, 65)), ["2 components", "8 components", "32 components"]),
        (np.zeros((20, 65)), ["2 components", "8 components"]),
        (torch.zeros(90, 65), ["2 components", "8 components", "32 components"]),
    ],
)
def test_standard_set_of_every_kind(X, names):
    assert list(standard_views(X)[0]) == names
    assert list(standard_views(GroupedData(X, np.zeros(len(X), dtype=int)))[0]) == names


def test_files_are_known_by_their_type_or_their_ending(tmp_path):
    paths = png_files(tmp_path)
    assert list(standard_views(paths)[0]) == PICTURES
    assert list(standard_views([str(p) for p in paths])[0]) == PICTURES


def test_a_wide_table_of_other_things_than_numbers_is_no_embedding():
    X = pd.DataFrame(np.zeros((9, 70)))
    assert "2 components" in standard_views(X)[0]
    X[0] = "category"
    assert len(standard_views(X)[0]) == 70


def test_the_extractor_looks_at_the_views_and_at_the_samples():
    extractor = PatchFeatures(n_patches=4)
    views, clean = standard_views(np.zeros((4, 3, 8, 8)), extractor=extractor)
    looks = [views["mask"][-1], views["shuffle"][-1], clean[-1]]
    assert [look.n_patches for look in looks] == [4, 4, 4]
    assert len({id(look) for look in [extractor, *looks]}) == 4


def test_samples_without_a_standard_set():
    with pytest.raises(ValueError, match=r"X has shape \(4,\).*Name the views"):
        standard_views(np.zeros(4))


# ---------------------------------------------------------------- TextStatistics

TEXT = 'Is it "GOOD"? Yes, yes! See http://a.b (no. 7)\nEnd.'


def test_text_statistics_by_hand():
    table = TextStatistics().set_output(transform="pandas").transform([TEXT])
    n_characters = 51
    words = TEXT.split()
    assert len(TEXT) == n_characters
    assert table.iloc[0].to_dict() == pytest.approx(
        {
            "n_characters": n_characters,
            "n_words": len(words),
            "n_sentences": 5,  # ? ! . of the address and of the number, and the end
            "word_length": sum(map(len, words)) / len(words),
            "distinct_words": 10 / 10,
            "capitals": 8 / n_characters,
            "digits": 1 / n_characters,
            "punctuation": 13 / n_characters,
            "exclamation_marks": 1,
            "question_marks": 1,
            "quotes": 2,
            "brackets": 2,
            "links": 1,
            "lines": 2,
        }
    )


def test_text_statistics_of_an_empty_text_and_of_none():
    empty = TextStatistics().transform([""])
    assert np.isfinite(empty).all()
    assert empty[0, :-1].tolist() == [0.0] * 13
    assert TextStatistics().transform([]).shape == (0, 14)


def test_text_statistics_carry_groups_and_take_any_container():
    texts = ["One text.", "And another one!"]
    table = TextStatistics().fit_transform(texts)
    assert_array_equal(TextStatistics().transform(pd.Series(texts)), table)
    assert_array_equal(TextStatistics().transform(np.array(texts)), table)
    carried = TextStatistics().fit_transform(GroupedData(texts, [0, 1]))
    assert_array_equal(carried.data, table)
    assert carried.sample_group.tolist() == [0, 1]
    named = (
        TextStatistics().set_output(transform="pandas").fit_transform(GroupedData(texts, [0, 1]))
    )
    assert list(named.data.columns) == list(TextStatistics().get_feature_names_out())
    assert len(TextStatistics().get_feature_names_out()) == table.shape[1]


@pytest.mark.parametrize("method", ["fit", "transform"])
def test_text_statistics_want_texts(method):
    with pytest.raises(ValueError, match=r"X\[1\] is 3"):
        getattr(TextStatistics(), method)(["a", 3])
    with pytest.raises(TypeError, match="X is one text"):
        getattr(TextStatistics(), method)("a bare text")


# ---------------------------------------------------------------- edges of ImageStatistics


def test_edges_are_differences_of_neighbouring_bands():
    rng = np.random.default_rng(0)
    X = rng.random((5, 3, 8, 8))
    frame = ImageStatistics(["rows", "columns", "edges"], n_bands=4).set_output(transform="pandas")
    table = frame.fit_transform(X)
    for kind, axis in (("row", 3), ("column", 2)):
        means = X.mean(axis=axis).reshape(5, 3, 4, 2).mean(axis=3)
        for c, colour in enumerate(["red", "green", "blue"]):
            for k in range(3):
                expected = means[:, c, k + 1] - means[:, c, k]
                assert_allclose(table[f"{kind}_edge_{k}_{colour}"], expected, atol=1e-6)


def test_edges_show_a_line_that_is_no_band_of_its_own():
    X = np.zeros((1, 1, 8, 8))
    X[0, 0, 3] = 1.0
    names = ImageStatistics(["edges"], n_bands=8).fit(X).get_feature_names_out()
    edges = dict(zip(names, ImageStatistics(["edges"], n_bands=8).fit_transform(X)[0], strict=True))
    assert {k: v for k, v in edges.items() if v} == {
        "row_edge_2_grey": 1.0,
        "row_edge_3_grey": -1.0,
    }
