"""TorchFeatureExtractor(cross_fit=k): outputs of networks that have not seen the sample."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.estimator_checks import check_estimator
from torch import nn
from torch.utils.data import Dataset

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
)
from skspurious.functional._error_set import stratified_folds
from skspurious.pipeline import make_pipeline
from skspurious.utils._random import draw_seed

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] > 0.3).astype(int)
ERM = ERMClassifier(lr=0.1, max_epochs=3, batch_size=16, random_state=0)


def make(module=ERM, **params):
    params = {"cross_fit": 3, "output": "logits", "random_state": 0, **params}
    return TorchFeatureExtractor(module, **params)


@pytest.mark.fidelity
def test_outputs_are_those_of_networks_trained_on_the_other_folds():
    """Against a loop over the folds by hand."""
    Z = make().fit_transform(X, Y)
    fold = stratified_folds(Y, 3, np.random.Generator(np.random.PCG64(draw_seed(0))))
    assert set(np.bincount(fold[Y == 1])) <= {Y.sum() // 3, Y.sum() // 3 + 1}
    for k in range(3):
        network = clone(ERM).fit(X[fold != k], Y[fold != k]).module_
        with torch.no_grad():
            expected = network(torch.from_numpy(X[fold == k]))
        assert_allclose(Z[fold == k], expected, atol=1e-6)


def test_transform_uses_a_network_of_all_rows():
    extractor = make().fit(X, Y)
    plain = TorchFeatureExtractor(ERM, output="logits").fit(X, Y)
    assert_array_equal(extractor.transform(X), plain.transform(X))
    of_fit_transform = make()
    out_of_fold = of_fit_transform.fit_transform(X, Y)
    assert_array_equal(of_fit_transform.transform(X), plain.transform(X))
    assert not np.allclose(out_of_fold, plain.transform(X), atol=1e-3)
    without = TorchFeatureExtractor(ERM, output="logits")
    assert_array_equal(without.fit_transform(X, Y), plain.transform(X))


def test_the_seed_decides_the_folds_and_the_networks():
    unseeded = clone(ERM).set_params(random_state=None)
    first = make(unseeded).fit(X, Y).transform(X)
    assert_array_equal(make(unseeded).fit(X, Y).transform(X), first)
    out_of_fold = make(unseeded).fit_transform(X, Y)
    assert_array_equal(make(unseeded).fit_transform(X, Y), out_of_fold)
    other = make(unseeded, random_state=1).fit_transform(X, Y)
    assert not np.allclose(other, out_of_fold, atol=1e-3)
    assert make(random_state=None).fit_transform(X, Y).shape == (60, 2)


def test_probabilities_are_the_softmax_of_the_logits():
    Z, logits = (make(output=output).fit_transform(X, Y) for output in ("proba", "logits"))
    assert_allclose(Z, softmax(logits, axis=1), atol=1e-6)


class Rows(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.from_numpy(X[i]), int(Y[i])


@pytest.mark.parametrize("labels", ["numbers", "names", "tensor", "list"])
@pytest.mark.parametrize("kind", ["array", "frame", "tensor", "dataset", "samples"])
def test_every_kind_of_samples_and_labels(kind, labels):
    y = {
        "numbers": Y,
        "names": np.array(["no", "yes"])[Y],
        "tensor": torch.from_numpy(Y),
        "list": Y.tolist(),
    }[labels]
    erm = clone(ERM).set_params(module=nn.Linear(6, 2))
    expected = make(erm).fit_transform(torch.from_numpy(X), Y)
    given = {
        "array": X,
        "frame": pd.DataFrame(X, columns=list("abcdef")),
        "tensor": torch.from_numpy(X),
        "dataset": Rows(),
        "samples": GroupedData(Rows(), Y)[np.arange(60)].data,
    }[kind]
    assert_allclose(make(erm).fit_transform(given, y), expected, atol=1e-6)


def test_containers_groups_and_memory_maps(tmp_path):
    expected = make().fit_transform(X, Y)
    carried = make().set_output(transform="pandas").fit_transform(GroupedData(X, Y + 5), Y)
    assert isinstance(carried.data, pd.DataFrame)
    assert_array_equal(carried.data, expected)
    assert_array_equal(carried.sample_group, Y + 5)
    mapped = make(memmap_dir=tmp_path, dtype="float16").fit_transform(X, Y)
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.float16
    assert len(list(tmp_path.iterdir())) == 1  # the folds write no files
    assert_allclose(mapped, expected, atol=1e-2)


def test_nothing_that_is_passed_is_changed():
    module = clone(ERM).set_params(module=nn.Linear(6, 2))
    before = copy.deepcopy(module.module.state_dict())
    extractor = make(module)
    extractor.fit_transform(X, Y)
    assert not hasattr(module, "module_")
    assert all(torch.equal(v, before[k]) for k, v in module.module.state_dict().items())
    for other in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        assert other.cross_fit == 3
    again = pickle.loads(pickle.dumps(extractor))
    assert_array_equal(again.transform(X), extractor.transform(X))


def test_every_fold_has_a_checkpoint_of_its_own(tmp_path):
    module = clone(ERM).set_params(checkpoint_dir=tmp_path)
    expected = make().fit_transform(X, Y)
    assert_array_equal(make(module).fit_transform(X, Y), expected)
    assert {f"fold-{k}" for k in range(3)} <= {path.name for path in tmp_path.iterdir()}
    assert_array_equal(make(module).fit_transform(X, Y), expected)


def test_errors_name_the_parameter():
    with pytest.raises(ValueError, match=r"cross_fit=3 trains networks, but nothing is trained"):
        make(nn.Linear(6, 2)).fit(X)
    with pytest.raises(ValueError, match=r"nothing is trained here: pass an unfitted classifier"):
        make(FrozenEstimator(clone(ERM).fit(X, Y))).fit(X)
    with pytest.raises(ValueError, match="cross_fit=3 does not go with epoch_selector"):
        make(epoch_selector=SpuriousGroupInferrer()).fit(X, Y)
    for output in ("embedding", "hardness", "hardness_residual"):
        with pytest.raises(ValueError, match=rf"cross_fit=3 does not go with output='{output}'"):
            make(output=output).fit(X, Y)
    with pytest.raises(ValueError, match="'cross_fit' parameter"):
        make(cross_fit=1).fit(X, Y)
    with pytest.raises(ValueError, match="cross_fit=3, but a class has one sample"):
        make().fit_transform(X, [2, *Y[1:]])
    with pytest.raises(ValueError, match="requires y to be passed"):
        make().fit_transform(X)
    with pytest.raises(ValueError, match="GroupDROClassifier needs the group of every"):
        make(GroupDROClassifier()).fit(X, Y)


def test_check_estimator():
    """scikit-learn knows by name that TargetEncoder's fit_transform is not fit and transform."""
    why = "fit_transform is out of fold, as that of TargetEncoder; transform is not"
    module = ERMClassifier(lr=0.1, max_epochs=3, batch_size=16, random_state=0)
    expected = {"check_transformer_general": why, "check_transformer_data_not_an_array": why}
    check_estimator(make(module, cross_fit=2), expected_failed_checks=expected, on_skip=None)


def test_lists_and_array_likes_of_numbers():
    class ArrayLike:
        def __array__(self, dtype=None, copy=None):
            return np.array(X, dtype=dtype)

    expected = make().fit_transform(X, Y)
    for given in (X.tolist(), ArrayLike()):
        assert_allclose(make().fit_transform(given, Y), expected, atol=1e-6)


def _draw(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(200, 30)).astype(np.float32), rng.permutation(np.arange(200) % 2)


@pytest.mark.fidelity
def test_random_labels_are_not_known_out_of_fold():
    """Right by chance, alone and before an inferrer, though the network itself knows all."""
    right = {"out of fold": [], "inferrer": [], "own rows": []}
    for seed in range(6):
        rows, y = _draw(seed)
        net = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))
        erm = ERMClassifier(
            net, optimizer="adam", lr=0.01, max_epochs=40, batch_size=50, random_state=0
        )
        extractor = make(erm, cross_fit=5)
        Z = extractor.fit_transform(rows, y)
        right["out of fold"].append(balanced_accuracy_score(y, Z.argmax(axis=1)))
        inferrer = SpuriousGroupInferrer("error", random_state=0).fit(Z, y)
        side = np.where(inferrer.margin_ > 0, y, 1 - y)
        right["inferrer"].append(balanced_accuracy_score(y, side))
        own = extractor.transform(rows).argmax(axis=1)
        right["own rows"].append(balanced_accuracy_score(y, own))
    interval = (
        3 * 0.055 / np.sqrt(6)
    )  # over draws, in one of which rows are right or wrong together
    assert abs(np.mean(right["out of fold"]) - 0.5) < interval
    assert abs(np.mean(right["inferrer"]) - 0.5) < interval
    assert np.mean(right["own rows"]) > 0.95  # or the test could not fail


def test_a_row_met_again_is_seen_by_the_network_of_all_rows():
    """What the docs say: an inferrer knows its own side of a row, a network has fitted it."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 30)).astype(np.float32)
    y = np.where(rng.random(300) < 0.8, rows[:, 0] > 0, rows[:, 0] <= 0).astype(int)
    net = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))
    erm = ERMClassifier(net, optimizer="adam", lr=0.01, max_epochs=40, random_state=0)
    pipeline = make_pipeline(make(erm), SpuriousGroupInferrer("error", random_state=0))
    pipeline.fit(rows[:200], y[:200])
    assert 0.15 < (pipeline[-1].labels_ % 2).mean() < 0.5
    assert (pipeline.infer_groups(rows[:200], y[:200]) % 2).mean() < 0.05
    assert 0.15 < (pipeline.infer_groups(rows[200:], y[200:]) % 2).mean() < 0.5
