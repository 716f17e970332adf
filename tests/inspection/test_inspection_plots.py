"""Displays: what is drawn is read back from the axes."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError

from skspurious.data import GroupedData
from skspurious.inspection import GroupAccuracyDisplay, GroupGalleryDisplay, HistoryDisplay
from skspurious.metrics import group_report


class _Constant(ClassifierMixin, BaseEstimator):
    """A classifier that knows one answer, and perhaps groups."""

    def __init__(self, answer, group_inferrer=None):
        self.answer, self.group_inferrer = answer, group_inferrer

    def fit(self, X=None, y=None):
        self.classes_, self.group_inferrer_ = np.array([0, 1]), self.group_inferrer
        return self

    def predict(self, X):
        assert not isinstance(X, GroupedData)
        return np.full(len(X), self.answer)

    def infer_groups(self, X, y):
        return np.where(np.asarray(y) == 1, "inferred-1", "inferred-0")


# 2 of 2 right in a, 1 of 4 in b, 2 of 4 in c
Y_TRUE = np.array([0, 0, 1, 1, 1, 1, 0, 0, 1, 1])
Y_PRED = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
GROUP = np.array(list("aabbbbcccc"))


def _tick_labels(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


# ---------------------------------------------------------------- GroupAccuracyDisplay


def test_group_accuracy_display_bars_by_hand():
    display = GroupAccuracyDisplay.from_predictions(Y_TRUE, Y_PRED, sample_group=GROUP)
    assert_allclose([bar.get_width() for bar in display.bars_], [1.0, 0.25, 0.5])
    assert _tick_labels(display.ax_) == ["a  (n = 2)", "b  (n = 4)", "c  (n = 4)"]
    assert "worst group 0.250" in display.ax_.get_title()
    assert "0.500" in display.ax_.get_title()  # 5 of 10
    assert display.figure_ is display.ax_.figure


def test_group_accuracy_display_first_group_is_on_top():
    display = GroupAccuracyDisplay.from_predictions(Y_TRUE, Y_PRED, sample_group=GROUP)
    bottom, top = display.ax_.get_ylim()
    assert bottom > top


def test_group_accuracy_display_marks_the_worst_group_only():
    display = GroupAccuracyDisplay.from_predictions(Y_TRUE, Y_PRED, sample_group=GROUP)
    colors = [bar.get_facecolor() for bar in display.bars_]
    assert colors[0] == colors[2] != colors[1]
    weights = [label.get_fontweight() for label in display.ax_.get_yticklabels()]
    assert weights == ["normal", "bold", "normal"]


def test_group_accuracy_display_intervals_are_those_of_the_report():
    report = group_report(Y_TRUE, Y_PRED, sample_group=GROUP, confidence=0.8)
    display = GroupAccuracyDisplay(report).plot()
    # errorbar adds one collection of horizontal lines, from low to high
    segments = np.array(display.ax_.collections[0].get_segments())
    assert_allclose(segments[:, 0, 0], report["low"], atol=1e-12)
    assert_allclose(segments[:, 1, 0], report["high"], atol=1e-12)
    assert_allclose(segments[:, 0, 1], [0, 1, 2])
    assert "80 %" in display.ax_.get_xlabel()


def test_group_accuracy_display_shows_an_expected_group_without_samples():
    display = GroupAccuracyDisplay.from_predictions(
        Y_TRUE, Y_PRED, sample_group=GROUP, groups=["a", "absent", "b", "c"]
    )
    assert _tick_labels(display.ax_)[1] == "absent  (n = 0)"
    assert np.isnan(display.bars_[1].get_width())
    assert "worst group 0.250" in display.ax_.get_title()
    display.figure_.canvas.draw()


def test_group_accuracy_display_names_crossed_attributes():
    group = pd.DataFrame({"bird": list("wwll"), "place": list("WLWL")})
    display = GroupAccuracyDisplay.from_predictions([0] * 4, [0] * 4, sample_group=group)
    assert _tick_labels(display.ax_)[0] == "l, L  (n = 1)"
    assert display.ax_.get_ylabel() == "bird, place"
    colors = [bar.get_facecolor() for bar in display.bars_]
    assert colors[0] != colors[1] == colors[2] == colors[3]  # of equals, the first is the worst


def test_group_accuracy_display_draws_where_it_is_told():
    figure, (left, right) = plt.subplots(1, 2)
    display = GroupAccuracyDisplay.from_predictions(
        Y_TRUE, Y_PRED, sample_group=GROUP, ax=right, color="black", estimator_name="mine"
    )
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.patches
    assert {bar.get_facecolor() for bar in display.bars_} == {(0.0, 0.0, 0.0, 1.0)}
    assert right.get_title().startswith("mine\n")


@pytest.mark.parametrize("how", ["explicit", "carried", "inferred"])
def test_group_accuracy_display_takes_groups_from_three_sources(how):
    X, y = np.zeros((10, 2)), Y_TRUE
    estimator = _Constant(0, group_inferrer="fitted").fit()
    if how == "explicit":
        other = GroupedData(X, np.zeros(10))  # the explicit groups win
        display = GroupAccuracyDisplay.from_estimator(estimator, other, y, sample_group=GROUP)
    elif how == "carried":
        display = GroupAccuracyDisplay.from_estimator(estimator, GroupedData(X, GROUP), y)
    else:
        display = GroupAccuracyDisplay.from_estimator(estimator, X, y)
    group = estimator.infer_groups(X, y) if how == "inferred" else GROUP
    expected = group_report(y, np.zeros(10), sample_group=group)
    pd.testing.assert_frame_equal(pd.DataFrame(display.report), pd.DataFrame(expected))
    assert display.ax_.get_title().startswith("_Constant\n")


def test_group_accuracy_display_without_groups_names_the_remedies():
    with pytest.raises(ValueError, match=r"sample_group=.*GroupedData.*group_inferrer"):
        GroupAccuracyDisplay.from_estimator(_Constant(0).fit(), np.zeros((10, 2)), Y_TRUE)


# ---------------------------------------------------------------- HistoryDisplay


def _history():
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_accuracy": [0.5, 0.8, 0.9],
            "train_worst_group_accuracy": [0.0, 0.1, 0.2],
            "valid_accuracy": [0.4, 0.7, 0.6],
            "valid_worst_group_accuracy": [0.1, 0.3, 0.2],
            "valid_accuracy_group_0": [0.1, 0.3, 0.2],
        }
    )


def test_history_display_draws_the_columns():
    history = _history()
    display = HistoryDisplay(history, best_epoch=2).plot()
    assert set(display.lines_) == {
        "train_accuracy",
        "train_worst_group_accuracy",
        "valid_accuracy",
        "valid_worst_group_accuracy",
    }
    for column, line in display.lines_.items():
        assert_array_equal(line.get_xdata(), history["epoch"])
        assert_array_equal(line.get_ydata(), history[column])
    assert display.lines_["valid_accuracy"].get_label() == "valid, mean"
    assert display.lines_["train_worst_group_accuracy"].get_label() == "train, worst group"
    best = display.ax_.lines[-1]
    assert best.get_label() == "best epoch"
    assert_array_equal(best.get_xdata(), [2, 2])


def test_history_display_without_groups_and_validation():
    display = HistoryDisplay(_history()[["epoch", "train_accuracy"]]).plot()
    assert list(display.lines_) == ["train_accuracy"]
    assert len(display.ax_.lines) == 1


def test_history_display_from_estimator():
    estimator = _Constant(0).fit()
    estimator.history_, estimator.best_epoch_ = _history(), None
    display = HistoryDisplay.from_estimator(estimator, linewidth=5)
    assert display.ax_.get_title() == "_Constant"
    assert {line.get_linewidth() for line in display.lines_.values()} == {5}


def test_history_display_needs_a_history():
    with pytest.raises(TypeError, match="_Constant has no history_"):
        HistoryDisplay.from_estimator(_Constant(0).fit())


# ---------------------------------------------------------------- GroupGalleryDisplay


def _images(values, dtype=np.uint8, channels=3):
    """One flat image of 2 by 3 pixels per value."""
    return np.broadcast_to(
        np.array(values, dtype=dtype)[:, None, None, None], (len(values), channels, 2, 3)
    )


def test_group_gallery_display_puts_each_image_in_the_row_of_its_group():
    X = _images([10, 20, 30, 40])
    display = GroupGalleryDisplay.from_data(X, sample_group=["b", "a", "b", "b"], n_images=2)
    # tiles of 4 by 5 pixels: a border of one white pixel around each image
    expected = np.full((8, 10), 255)
    expected[1:3, 1:4] = 20  # a has one image
    expected[5:7, 1:4] = 10  # b: the first and the last of three
    expected[5:7, 6:9] = 40
    assert_array_equal(display.mosaic, np.stack([expected] * 3, axis=-1))
    assert display.groups == ["a", "b"]
    assert display.sizes == [1, 3]
    assert _tick_labels(display.ax_) == ["a  (n = 1)", "b  (n = 3)"]
    assert_allclose(display.ax_.get_yticks(), [1.5, 5.5])  # the middle of each row


def test_group_gallery_display_keeps_colour_and_orientation():
    X = np.zeros((1, 3, 2, 2), dtype=np.uint8)
    X[0, 0, 0, 1] = 200  # red, upper right
    display = GroupGalleryDisplay.from_data(X, sample_group=[0], n_images=1)
    assert_array_equal(display.mosaic[1, 2], [200, 0, 0])
    assert display.mosaic[1:3, 1:3].sum() == 200


@pytest.mark.parametrize("as_tensor", [False, True])
def test_group_gallery_display_accepts_floats_one_channel_and_carried_groups(as_tensor):
    X = _images([0.0, 1.0, 0.2], dtype=np.float32, channels=1)
    X = torch.tensor(X) if as_tensor else X
    display = GroupGalleryDisplay.from_data(GroupedData(X, ["a", "b", "c"]), n_images=1)
    assert_array_equal(display.mosaic[[1, 5, 9], 1], [[0] * 3, [255] * 3, [51] * 3])


def test_group_gallery_display_shows_the_chosen_groups_in_their_order():
    X = _images([10, 20, 30])
    display = GroupGalleryDisplay.from_data(
        X, sample_group=["a", "b", "c"], groups=["c", "a"], n_images=1
    )
    assert display.groups == ["c", "a"]
    assert_array_equal(display.mosaic[[1, 5], 1, 0], [30, 10])
    with pytest.raises(ValueError, match=r"not among the known groups.*'z'"):
        GroupGalleryDisplay.from_data(X, sample_group=["a", "b", "c"], groups=["z"])


def test_group_gallery_display_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"1 or 3 channels.*\(1, 2, 2, 2\)"):
        GroupGalleryDisplay.from_data(np.zeros((1, 2, 2, 2)), sample_group=[0])
    with pytest.raises(ValueError, match=r"from -1 to 0.*scale it to 0 to 1"):
        GroupGalleryDisplay.from_data(
            np.array([[[[-1.0, 0.0]]]], dtype=np.float32), sample_group=[0]
        )
    with pytest.raises(ValueError, match=r"needs groups.*sample_group="):
        GroupGalleryDisplay.from_data(_images([1]))
    with pytest.raises(ValueError, match="2 rows for 1 samples"):
        GroupGalleryDisplay.from_data(_images([1]), sample_group=[0, 1])


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("n_groups", [2, 25])
@pytest.mark.parametrize("kind", ["accuracy", "gallery"])
def test_displays_fit_into_their_figures(kind, n_groups):
    group = [f"digits 8|9, violet {g:02d}" for g in range(n_groups)]
    if kind == "accuracy":
        zeros = np.zeros(n_groups)
        display = GroupAccuracyDisplay.from_predictions(zeros, zeros, sample_group=group)
    else:
        display = GroupGalleryDisplay.from_data(_images(range(n_groups)), sample_group=group)
    display.figure_.canvas.draw()
    width, height = display.figure_.canvas.get_width_height()
    left, bottom, right, top = display.ax_.get_tightbbox().extents
    assert min(left, bottom, width - right, height - top) > -1


def test_displays_need_a_fitted_estimator():
    with pytest.raises(NotFittedError):
        GroupAccuracyDisplay.from_estimator(_Constant(0), np.zeros((1, 1)), [0])
    with pytest.raises(NotFittedError):
        HistoryDisplay.from_estimator(_Constant(0))


def test_displays_say_how_to_install_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.delattr("matplotlib.pyplot", raising=False)
    with pytest.raises(ImportError, match=r"GroupAccuracyDisplay .*skspurious\[plot\]"):
        GroupAccuracyDisplay.from_predictions([0], [0], sample_group=[0])


def test_inspection_imports_without_matplotlib():
    import subprocess

    code = "import sys, skspurious.inspection; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_displays_leave_the_given_report_alone():
    report = group_report(Y_TRUE, Y_PRED, sample_group=GROUP)
    before = pd.DataFrame(report).copy()
    GroupAccuracyDisplay(report).plot()
    pd.testing.assert_frame_equal(pd.DataFrame(report), before)


def test_names_with_signs_of_formulas_and_tags_are_drawn_and_printed_as_they_are(tmp_path):
    names = ["$\\frac", "$a_b$", "<b>", "100 % \\ _x"]
    group = np.array(names)[[0, 0, 1, 1, 1, 2, 2, 2, 3, 3]]
    display = GroupAccuracyDisplay.from_predictions(
        Y_TRUE, Y_PRED, sample_group=group, estimator_name="$\\frac"
    )
    display.figure_.savefig(tmp_path / "drawn.png")  # a formula that is none would raise
    assert [text.split("  (n")[0] for text in _tick_labels(display.ax_)] == sorted(names)
    report = group_report(Y_TRUE, Y_PRED, sample_group=group)
    assert all(name in str(report) for name in names)
    assert "<b>" not in report._repr_html_().replace("<b>0", "").replace("<b>1", "")
    gallery = GroupGalleryDisplay.from_data(np.zeros((10, 1, 4, 4)), sample_group=group)
    gallery.figure_.savefig(tmp_path / "gallery.png")
    history = HistoryDisplay(pd.DataFrame({"epoch": [1], "train_accuracy": [0.5]}))
    history.estimator_name = "$\\frac"
    history.plot().figure_.savefig(tmp_path / "history.png")
