import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import accuracy_score

from skspurious.metrics import GroupReport, group_accuracy, group_report, worst_group_accuracy

# Accuracies: grass 5 of 5, sand 1 of 4, sea 3 of 6; 9 of 15 together.
Y_TRUE = np.array([0] * 5 + [1] * 4 + [2] * 6)
Y_PRED = np.array([0] * 5 + [1, 0, 0, 0] + [2, 2, 2, 0, 0, 0])
GROUP = np.repeat(["grass", "sand", "sea"], [5, 4, 6])


def _report(**keywords):
    return group_report(Y_TRUE, Y_PRED, sample_group=GROUP, **keywords)


def test_group_report_by_hand():
    report = _report()
    assert report.index.tolist() == ["grass", "sand", "sea"]
    assert report.columns.tolist() == ["n", "accuracy", "low", "high", "gap"]
    assert report["n"].tolist() == [5, 4, 6]
    assert_allclose(report["accuracy"], [1, 0.25, 0.5])
    assert_allclose(report["gap"], [0.4, -0.35, -0.1])


def test_group_report_summary_by_hand():
    # Adjusted: (50 * 1 + 30 * 0.25 + 20 * 0.5) / 100.
    report = _report(train_group=np.repeat(["grass", "sand", "sea"], [50, 30, 20]))
    assert report.worst_group == "sand"
    assert report.worst_group_accuracy == 0.25
    assert report.average_accuracy == pytest.approx(0.6)
    assert report.adjusted_accuracy == pytest.approx(0.675)
    assert report["n_train"].tolist() == [50, 30, 20]


def test_group_report_is_honest_about_a_perfect_small_group():
    report = _report()
    assert report.loc["grass", "low"] == pytest.approx(0.5655, abs=1e-4)  # 5 / (5 + 1.96^2)
    assert report.loc["grass", "high"] == 1


def test_group_report_confidence_widens_the_intervals():
    narrow, wide = _report(confidence=0.8), _report(confidence=0.99)
    assert (wide["high"] - wide["low"] > narrow["high"] - narrow["low"]).all()
    assert "99 % Wilson interval" in str(wide)


def test_group_report_agrees_with_the_metrics():
    rng = np.random.default_rng(0)
    y_true, y_pred, group = rng.integers(0, 3, (3, 200))
    report = group_report(y_true, y_pred, sample_group=group)
    assert_allclose(report["accuracy"], group_accuracy(y_true, y_pred, sample_group=group))
    worst = worst_group_accuracy(y_true, y_pred, sample_group=group)
    assert report.worst_group_accuracy == worst
    assert report.average_accuracy == pytest.approx(accuracy_score(y_true, y_pred))


def test_group_report_does_not_depend_on_the_order_of_the_rows():
    order = np.random.default_rng(0).permutation(15)
    again = group_report(Y_TRUE[order], Y_PRED[order], sample_group=GROUP[order])
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(_report()))


def test_group_report_without_a_training_mix_has_no_adjusted_accuracy():
    assert _report().adjusted_accuracy is None
    assert "adjusted" not in str(_report())


def test_group_report_shows_a_training_group_without_samples():
    report = _report(group_sizes={"grass": 5, "lake": 3, "sand": 1, "sea": 2}, empty="nan")
    assert report.index.tolist() == ["grass", "lake", "sand", "sea"]
    assert report["n"].tolist() == [5, 0, 4, 6]
    assert report.loc["lake", ["accuracy", "low", "high", "gap"]].isna().all()
    assert np.isnan(report.worst_group_accuracy)
    assert np.isnan(report.adjusted_accuracy)
    assert report.worst_group == "sand"
    assert report.average_accuracy == pytest.approx(0.6)
    assert "nan  (1 group(s) have no samples; lowest seen 0.2500 [" in str(report)


@pytest.mark.parametrize(
    "keywords",
    [
        {"groups": ["grass", "lake", "sand", "sea"]},
        {"group_sizes": {"grass": 5, "lake": 3, "sand": 1, "sea": 2}},
        {"train_group": ["grass", "lake", "sand", "sea"]},
    ],
)
def test_group_report_of_an_expected_group_without_samples_raises_unless_asked(keywords):
    with pytest.raises(ValueError, match=r"have no samples.*'lake'.*empty='nan'"):
        _report(**keywords)
    assert np.isnan(_report(**keywords, empty="nan").worst_group_accuracy)


def test_group_report_expects_no_group_of_size_zero():
    report = _report(group_sizes={"grass": 5, "lake": 0, "sand": 1, "sea": 2})
    assert report.index.tolist() == ["grass", "sand", "sea"]


def test_group_report_gives_a_group_that_training_lacks_no_weight():
    report = _report(train_group=["grass", "sand"])
    assert report["n_train"].tolist() == [1, 1, 0]
    assert report.adjusted_accuracy == pytest.approx((1 + 0.25) / 2)


def test_group_report_of_two_attributes():
    group = pd.DataFrame({"label": Y_TRUE, "place": GROUP})
    report = group_report(Y_TRUE, Y_PRED, sample_group=group, train_group=group)
    assert report.index.names == ["label", "place"]
    assert report.worst_group == (1, "sand")
    assert report.adjusted_accuracy == pytest.approx(0.6)
    assert "group (1, sand), n = 4" in str(report)
    assert "<th>label</th><th>place</th>" in report._repr_html_()


def test_group_report_of_integer_groups_with_gaps_and_a_new_one_in_training():
    group = np.array([7, 7, 2, 2])
    report = group_report(
        [0, 0, 1, 1], [0, 1, 1, 1], sample_group=group, train_group=[2, 5, 7], empty="nan"
    )
    assert report.index.tolist() == [2, 5, 7]
    assert report["accuracy"].tolist()[::2] == [1, 0.5]
    assert report.index.dtype == np.int64


@pytest.mark.parametrize(("y_pred", "accuracy"), [([1], 1.0), ([0], 0.0)])
def test_group_report_of_one_sample(y_pred, accuracy):
    report = group_report([1], y_pred, sample_group=["a"])
    assert report.worst_group_accuracy == accuracy
    assert report["gap"].tolist() == [0]


def test_group_report_prints_a_table_with_the_worst_group_marked():
    lines = str(_report(group_sizes={"grass": 1, "sand": 1, "sea": 1})).splitlines()
    assert [line for line in lines if "<- worst" in line] == [lines[3]]
    assert lines[3].startswith("sand")
    assert "worst-group accuracy  0.2500 [0.0456, 0.6994]  (group sand, n = 4)" in lines
    assert "average accuracy      0.6000  (mean over the samples)" in lines
    assert "adjusted accuracy     0.5833  (groups weighted by their training sizes)" in lines
    assert repr(_report()) == str(_report())


def test_group_report_html_marks_one_row_and_escapes_names():
    group = np.where(GROUP == "sand", "<b>sand</b> & co", GROUP)
    report = group_report(Y_TRUE, Y_PRED, sample_group=group)
    html = report._repr_html_()
    assert html.count('title="worst group"') == 1
    marked = html.split('title="worst group"')[1].split("</tr>")[0]
    assert "&lt;b&gt;sand&lt;/b&gt; &amp; co" in marked
    assert "<b>sand" not in html


def test_group_report_writes_html(tmp_path):
    report = _report()
    assert report.to_html() == report._repr_html_()
    report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == report.to_html()
    with open(tmp_path / "again.html", "w") as file:
        report.to_html(file)
    assert (tmp_path / "again.html").read_text() == report.to_html()
    assert "<table" in report.to_html(border=0)
    assert "worst" not in report.to_html(border=0)


@pytest.mark.parametrize("round_trip", [lambda r: pickle.loads(pickle.dumps(r))])
def test_group_report_pickles(round_trip):
    report = _report(group_sizes={"grass": 1, "sand": 1, "sea": 1}, confidence=0.9)
    again = round_trip(report)
    assert isinstance(again, GroupReport)
    assert str(again) == str(report)
    assert again.adjusted_accuracy == report.adjusted_accuracy
    assert again.confidence == 0.9


def test_group_report_behaves_as_a_data_frame():
    report = _report()
    assert isinstance(report, pd.DataFrame)
    for derived in (
        report.sort_values("accuracy"),
        report[["n", "accuracy"]],
        report.loc[["sand"]],
        report.copy(),
        copy.deepcopy(report),
        report.round(2),
    ):
        assert type(derived) is pd.DataFrame
    assert report["accuracy"].min() == 0.25
    assert report.to_dict()["n"] == {"grass": 5, "sand": 4, "sea": 6}
    assert "sand" in report.to_csv()


def test_group_report_that_lost_a_column_still_prints():
    report = _report()
    del report["gap"]
    assert "accuracy" in repr(report)
    assert "<table" in report._repr_html_()
    assert "<table" in report.to_html()


def test_group_report_printing_changes_nothing():
    report = _report()
    before = pd.DataFrame(report).copy()
    str(report)
    report._repr_html_()
    pd.testing.assert_frame_equal(pd.DataFrame(report), before)


def test_group_report_refuses_bad_arguments():
    with pytest.raises(ValueError, match="confidence must be in"):
        _report(confidence=95)
    with pytest.raises(ValueError, match="not both"):
        _report(train_group=["sand"], group_sizes={"sand": 1})
    with pytest.raises(ValueError, match="sample_group has 3 rows for 15 samples"):
        group_report(Y_TRUE, Y_PRED, sample_group=GROUP[:3])
    with pytest.raises(ValueError, match="0 samples"):
        group_report([], [], sample_group=[])
