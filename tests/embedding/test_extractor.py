"""TorchFeatureExtractor: what it takes, what it gives, what it leaves alone."""

import copy
import errno
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image

from skspurious import (
    ERMClassifier,
    GroupedData,
    JTTClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
)
from skspurious.callbacks import Callback
from skspurious.group_inference import KMeansGroups, SpareGroups

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = (X[:, 0] + 0.1 * X[:, 1] > 0).astype(int)
IMAGES = RNG.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)


class Net(nn.Module):
    """Convolution, batch normalisation, dropout, two linear layers."""

    def __init__(self, n_classes=2):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
        )
        self.hidden = nn.Linear(4 * 6 * 6, 5)
        self.head = nn.Linear(5, n_classes)

    def forward(self, x):
        return self.head(self.hidden(self.features(x)).relu())


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Net()
    network.features[1].running_mean += 0.1  # batch statistics that matter
    return network.train()


def _reference_layers(network, images):
    """Every layer's output in evaluation mode, all rows at once."""
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        x = torch.from_numpy(images).float() / 255
        convolved = network.features[0](x)
        features = network.features(x)
        hidden = network.hidden(features)
        logits = network.head(hidden.relu())
    return {
        "features.0": convolved.flatten(1),
        "features": features,
        "hidden": hidden,
        "penultimate": hidden.relu(),
        "head": logits,
        "logits": logits,
        "proba": logits.softmax(1),
    }


# --------------------------------------------------------------------------------------
# Values


@pytest.mark.parametrize("layer", ["features.0", "features", "hidden", "penultimate", "head"])
def test_extractor_gives_the_output_of_any_layer(net, layer):
    Z = TorchFeatureExtractor(net, layer=layer, pooling=None).fit_transform(IMAGES)
    assert Z.dtype == np.float32
    assert_allclose(Z, _reference_layers(net, IMAGES)[layer], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", ["logits", "proba"])
def test_extractor_gives_logits_and_probabilities(net, output):
    Z = TorchFeatureExtractor(net, output=output, layer="ignored").fit_transform(IMAGES)
    assert_allclose(Z, _reference_layers(net, IMAGES)[output], rtol=1e-5, atol=1e-6)


def test_extractor_penultimate_times_the_head_is_the_logits(net):
    Z = TorchFeatureExtractor(net).fit_transform(IMAGES)
    logits = TorchFeatureExtractor(net, output="logits").fit_transform(IMAGES)
    weight, bias = net.head.weight.detach().numpy(), net.head.bias.detach().numpy()
    assert_allclose(Z @ weight.T + bias, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_extractor_does_not_depend_on_the_batch_size(net, batch_size):
    Z = TorchFeatureExtractor(net, batch_size=batch_size).fit_transform(IMAGES)
    assert_allclose(Z, _reference_layers(net, IMAGES)["penultimate"], rtol=1e-5, atol=1e-6)


def test_extractor_row_i_is_sample_i(net):
    extractor = TorchFeatureExtractor(net, batch_size=3).fit(IMAGES)
    order = np.random.default_rng(1).permutation(len(IMAGES))
    assert_allclose(
        extractor.transform(IMAGES[order]), extractor.transform(IMAGES)[order], rtol=1e-5
    )


def test_extractor_gives_the_same_bits_twice(net):
    """Evaluation mode: no dropout, no batch statistics, no augmentation."""
    extractor = TorchFeatureExtractor(net).fit(IMAGES)
    assert_array_equal(extractor.transform(IMAGES), extractor.transform(IMAGES))
    assert_array_equal(extractor.transform(IMAGES), clone(extractor).fit_transform(IMAGES))
    assert not any(module.training for module in extractor.module_.modules())


def test_extractor_never_augments():
    def noise(batch):
        return batch + torch.randn_like(batch)

    early = ERMClassifier(train_transform=noise, max_epochs=1, random_state=0)
    extractor = TorchFeatureExtractor(early, output="logits").fit(X, Y)
    assert_array_equal(extractor.transform(X), extractor.transform(X))


def test_extractor_float16(net):
    half = TorchFeatureExtractor(net, dtype="float16").fit_transform(IMAGES)
    assert half.dtype == np.float16
    assert_allclose(half, _reference_layers(net, IMAGES)["penultimate"], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_extractor_memmap(net, tmp_path, dtype):
    folder = tmp_path / "made" / "on demand"
    extractor = TorchFeatureExtractor(net, dtype=dtype, memmap_dir=folder, batch_size=7)
    Z = extractor.fit_transform(IMAGES)
    assert isinstance(Z, np.memmap)
    files = list(folder.iterdir())
    assert len(files) == 1  # fit wrote none
    Z.flush()
    assert_array_equal(np.load(files[0]), Z)
    again = TorchFeatureExtractor(net, dtype=dtype).fit_transform(IMAGES)
    assert_allclose(Z, again, rtol=1e-3 if dtype == "float16" else 1e-5, atol=1e-6)
    extractor.transform(IMAGES[:3])
    assert len(list(folder.iterdir())) == 2


def test_extractor_memmap_of_one_sample_is_one_file(net, tmp_path):
    TorchFeatureExtractor(net, memmap_dir=tmp_path).fit_transform(IMAGES[:1])
    assert len(list(tmp_path.iterdir())) == 1


def test_extractor_bf16_is_close(net):
    Z = TorchFeatureExtractor(net, precision="bf16").fit_transform(IMAGES)
    assert Z.dtype == np.float32
    assert_allclose(Z, _reference_layers(net, IMAGES)["penultimate"], rtol=0.1, atol=0.05)


def test_extractor_applies_the_eval_transform(net):
    Z = TorchFeatureExtractor(net, eval_transform=torch.zeros_like).fit_transform(IMAGES)
    assert_allclose(Z, np.broadcast_to(Z[0], Z.shape), rtol=1e-6)
    assert np.abs(Z - _reference_layers(net, IMAGES)["penultimate"].numpy()).max() > 1e-2


# --------------------------------------------------------------------------------------
# Kinds of module


def test_extractor_fits_a_clone_of_an_unfitted_classifier():
    early = ERMClassifier(lr=0.1, max_epochs=2, random_state=0)
    extractor = TorchFeatureExtractor(early, output="proba").fit(X, Y)
    assert not hasattr(early, "module_")
    assert extractor.estimator_ is not early
    same = clone(early).fit(X, Y)
    assert_allclose(extractor.transform(X), same.predict_proba(X), rtol=1e-5, atol=1e-6)


def test_extractor_fits_a_fitted_classifier_anew():
    early = ERMClassifier(lr=0.1, max_epochs=2, random_state=0).fit(X, Y)
    before = copy.deepcopy(early.module_.state_dict())
    extractor = TorchFeatureExtractor(early, output="logits").fit(-X, Y)
    assert_array_equal(before["weight"], early.module_.weight.detach())
    assert not torch.equal(extractor.module_.weight, early.module_.weight)


def test_extractor_uses_a_frozen_classifier_as_it_is():
    fitted = ERMClassifier(lr=0.1, max_epochs=2, random_state=0).fit(X, Y)
    before = copy.deepcopy(fitted.module_.state_dict())
    extractor = TorchFeatureExtractor(FrozenEstimator(fitted), output="proba").fit(-X, 1 - Y)
    assert_allclose(extractor.transform(X), fitted.predict_proba(X), rtol=1e-5, atol=1e-6)
    assert_array_equal(before["weight"], fitted.module_.weight.detach())
    assert extractor.n_features_in_ == 6
    # a clone, which a search makes, keeps it too
    again = clone(extractor).fit(X, Y)
    assert_array_equal(again.transform(X), extractor.transform(X))


# --------------------------------------------------------------------------------------
# The epoch whose network is kept


def _early(**params):
    params = {"lr": 0.1, "max_epochs": 4, "random_state": 0, **params}
    return ERMClassifier(Net, train_transform=random_flip, batch_size=4, **params)


def random_flip(batch):
    """An augmentation that draws from torch's generator."""
    return torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(-1), batch)


IMAGE_LABELS = np.arange(20) % 2


@pytest.mark.parametrize(
    ("scores", "best"),
    [([0.1, 0.9, 0.3, 0.5], 2), ([-1, -2, -2, -3], 1), ([0, 1, 1, 2], 4), ([0, 1, 1, 1], 2)],
)
def test_extractor_keeps_the_epoch_that_a_function_scores_highest(scores, best):
    """The network is that of a training that ends there: looking at it changes nothing."""
    seen = []

    def selector(extractor, images, labels):
        assert images is IMAGES
        assert labels is IMAGE_LABELS
        seen.append(extractor.transform(images))
        return scores[len(seen) - 1]

    extractor = TorchFeatureExtractor(_early(), output="logits", epoch_selector=selector)
    extractor.fit(IMAGES, IMAGE_LABELS)
    for epoch, Z in enumerate(seen, start=1):
        plain = TorchFeatureExtractor(_early(max_epochs=epoch), output="logits")
        assert_array_equal(Z, plain.fit_transform(IMAGES, IMAGE_LABELS))
        assert plain.epoch_scores_ is None
    assert_array_equal(extractor.transform(IMAGES), seen[best - 1])
    assert_array_equal(extractor.epoch_scores_, scores)
    assert extractor.estimator_.best_epoch_ == best
    assert len(extractor.estimator_.history_) == 4
    assert_array_equal(
        extractor.estimator_.predict(IMAGES), extractor.transform(IMAGES).argmax(axis=1)
    )


def test_extractor_keeps_the_epoch_with_the_highest_silhouette():
    """By hand: a training and a clustering for each number of epochs."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 6)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] + rng.normal(size=300) > 0).astype(int)
    inferrer = SpuriousGroupInferrer(SpareGroups(n_clusters=2), random_state=0)
    early = ERMClassifier(lr=1.0, max_epochs=5, batch_size=16, random_state=0)
    extractor = TorchFeatureExtractor(early, output="proba", epoch_selector=inferrer).fit(X, y)
    by_hand = []
    for n in range(1, 6):
        Z = TorchFeatureExtractor(clone(early).set_params(max_epochs=n), output="proba")
        by_hand.append(clone(inferrer).fit(Z.fit_transform(X, y), y).silhouette_.mean())
    assert len(set(by_hand)) == 5
    assert_array_equal(extractor.epoch_scores_, by_hand)
    assert extractor.estimator_.best_epoch_ == np.argmax(by_hand) + 1
    assert not hasattr(inferrer, "labels_")
    scaled = make_pipeline(StandardScaler(), inferrer)
    extractor.set_params(epoch_selector=scaled).fit(X, y)
    assert len(extractor.epoch_scores_) == 5


def test_extractor_counts_a_class_that_stays_whole_as_no_silhouette():
    rng = np.random.default_rng(0)
    X = np.r_[np.zeros((20, 2)), rng.normal(size=(20, 2))].astype(np.float32)
    y = np.repeat([0, 1], 20)
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2), random_state=0)
    extractor = TorchFeatureExtractor(
        ERMClassifier(max_epochs=1, random_state=0), epoch_selector=inferrer
    )
    found = clone(inferrer).fit(extractor.fit_transform(X, y), y)
    assert np.isnan(found.silhouette_[0])
    assert extractor.epoch_scores_ == [found.silhouette_[1] / 2]


def test_extractor_with_an_epoch_selector_leaves_nothing_behind(tmp_path):
    """Neither files nor callbacks; and it pickles, is cloned and fitted again."""
    own = [Callback()]
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2), random_state=0)
    extractor = TorchFeatureExtractor(
        ERMClassifier(max_epochs=3, callbacks=own, random_state=0),
        epoch_selector=inferrer,
        memmap_dir=tmp_path,
    ).fit(X, Y)
    assert list(tmp_path.iterdir()) == []
    assert len(extractor.estimator_.callbacks) == 1
    again = pickle.loads(pickle.dumps(extractor))
    assert_array_equal(again.epoch_scores_, extractor.epoch_scores_)
    fitted_again = clone(extractor).fit(X, Y)
    assert_array_equal(fitted_again.epoch_scores_, extractor.epoch_scores_)
    fitted_again.set_params(epoch_selector=None).fit(X, Y)
    assert fitted_again.epoch_scores_ is None
    assert fitted_again.estimator_.best_epoch_ is None


@pytest.mark.parametrize("value", [np.nan, np.inf, None, "high", [0.5]])
def test_extractor_refuses_an_epoch_score_that_is_no_number(value):
    extractor = TorchFeatureExtractor(ERMClassifier(), epoch_selector=lambda *_: value)
    with pytest.raises(ValueError, match="must give a finite number"):
        extractor.fit(X, Y)


def test_extractor_refuses_an_estimator_that_finds_no_clusters():
    extractor = TorchFeatureExtractor(ERMClassifier(), epoch_selector=LogisticRegression())
    with pytest.raises(TypeError, match="LogisticRegression, which finds no clusters"):
        extractor.fit(X, Y)


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        (nn.Linear(6, 2), "pass an unfitted classifier"),
        (FrozenEstimator(ERMClassifier(max_epochs=1).fit(X, Y)), "pass an unfitted classifier"),
        (JTTClassifier(), "use ERMClassifier or BalancedRetrainer"),
    ],
)
def test_extractor_says_where_there_are_no_epochs_to_choose_from(module, remedy):
    extractor = TorchFeatureExtractor(module, epoch_selector=lambda *_: 0.0)
    with pytest.raises(ValueError, match=remedy):
        extractor.fit(X, Y)


# --------------------------------------------------------------------------------------
# More kinds of module


def test_extractor_takes_a_torchvision_name():
    extractor = TorchFeatureExtractor("squeezenet1_1", layer="features.2", random_state=0)
    images = IMAGES[:2].repeat(4, axis=2).repeat(4, axis=3)
    Z = extractor.fit_transform(images)
    assert Z.shape == (2, 64)
    assert_array_equal(Z, clone(extractor).fit_transform(images))
    other = clone(extractor).set_params(random_state=1).fit_transform(images)
    assert not np.array_equal(Z, other)


def test_extractor_copies_a_module_and_leaves_it_untouched(net):
    before = copy.deepcopy(net.state_dict())
    extractor = TorchFeatureExtractor(net).fit(IMAGES)
    extractor.transform(IMAGES)
    assert extractor.module_ is not net
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert not any(module._forward_pre_hooks for module in extractor.module_.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_extractor_leaves_no_hook_behind_when_the_network_fails(net):
    extractor = TorchFeatureExtractor(net).fit(IMAGES)
    extractor.module_.head = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="shapes"):
        extractor.transform(IMAGES)
    assert not extractor.module_.head._forward_pre_hooks


def test_extractor_touches_no_global_generator(net, assert_global_rng_untouched):
    with assert_global_rng_untouched():
        TorchFeatureExtractor(net).fit_transform(IMAGES)
        TorchFeatureExtractor(ERMClassifier(max_epochs=1), output="proba").fit(X, Y).transform(X)


# --------------------------------------------------------------------------------------
# Kinds of X


class Pictures(Dataset):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return torch.from_numpy(IMAGES[i]), 0


def test_extractor_takes_every_kind_of_images(net, tmp_path):
    expected = _reference_layers(net, IMAGES)["penultimate"]
    paths = [str(tmp_path / f"{i}.png") for i in range(len(IMAGES))]
    for image, path in zip(IMAGES, paths):
        to_pil_image(torch.from_numpy(image)).save(path)
    kinds = [
        IMAGES,
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES).float() / 255,
        IMAGES / 255,
        Pictures(),
        list(torch.from_numpy(IMAGES)),
        paths,
        np.array(paths),
        GroupedData(paths, None),
    ]
    for kind in kinds:
        Z = TorchFeatureExtractor(net, batch_size=8).fit_transform(kind)
        Z = Z.data if isinstance(Z, GroupedData) else Z
        assert_allclose(Z, expected, rtol=1e-4, atol=1e-5)


def test_extractor_takes_texts_with_a_collate_fn():
    def characters(texts):
        return torch.tensor([[len(t), t.count("a")] for t in texts]).float()

    extractor = TorchFeatureExtractor(nn.Linear(2, 3), collate_fn=characters)
    assert_array_equal(extractor.fit_transform(["a", "banana"]), [[1, 1], [6, 3]])


def test_extractor_uses_the_collate_fn_and_eval_transform_of_its_classifier():
    def characters(texts):
        return torch.tensor([[len(t), t.count("a")] for t in texts]).float()

    early = ERMClassifier(
        nn.Linear(2, 2), collate_fn=characters, eval_transform=torch.neg, max_epochs=1
    )
    extractor = TorchFeatureExtractor(early).fit(["a", "banana"], [0, 1])
    assert_array_equal(extractor.transform(["a", "banana"]), [[-1, -1], [-6, -3]])


# --------------------------------------------------------------------------------------
# Groups, names, containers


def test_extractor_hands_groups_on_but_not_to_the_network():
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_init=1))
    carried = GroupedData(X, Y + 5, group_inferrer=inferrer)
    early = ERMClassifier(max_epochs=1, random_state=0)
    extractor = TorchFeatureExtractor(early, output="proba").fit(carried, Y)
    Z = extractor.transform(carried)
    assert isinstance(Z, GroupedData)
    assert_array_equal(Z.sample_group, Y + 5)
    assert Z.group_inferrer is inferrer
    assert_array_equal(Z.data, extractor.transform(X))
    assert extractor.estimator_.used_group_labels_ == {"train": False, "validation": False}
    assert len(extractor.estimator_.groups_) == 0


def test_extractor_names_its_features_and_obeys_set_output(net):
    extractor = TorchFeatureExtractor(net).set_output(transform="pandas").fit(IMAGES)
    names = [f"torchfeatureextractor{i}" for i in range(5)]
    assert extractor.get_feature_names_out().tolist() == names
    Z = extractor.transform(IMAGES)
    assert isinstance(Z, pd.DataFrame)
    assert Z.columns.tolist() == names
    assert_allclose(Z, _reference_layers(net, IMAGES)["penultimate"], rtol=1e-5, atol=1e-6)


def test_extractor_keeps_groups_and_index_with_set_output():
    frame = pd.DataFrame(X, index=range(100, 140)).rename(columns=str)
    extractor = TorchFeatureExtractor(ERMClassifier(max_epochs=1)).set_output(transform="pandas")
    Z = extractor.fit(frame, Y).transform(GroupedData(frame, Y))
    assert isinstance(Z, GroupedData)
    assert_array_equal(Z.sample_group, Y)
    assert isinstance(Z.data, pd.DataFrame)
    assert Z.data.index.tolist() == list(range(100, 140))
    assert extractor.feature_names_in_.tolist() == list("012345")
    assert isinstance(extractor.fit_transform(GroupedData(frame, Y), Y), GroupedData)


def test_extractor_in_a_pipeline_with_set_output_passes_groups_to_the_classifier():
    pipeline = make_pipeline(
        TorchFeatureExtractor(ERMClassifier(max_epochs=1, random_state=0)),
        ERMClassifier(max_epochs=1, random_state=0),
    ).set_output(transform="pandas")
    pipeline.fit(GroupedData(X, Y), Y)
    assert pipeline[-1].groups_.tolist() == [0, 1]
    assert pipeline[-1].feature_names_in_[0] == "torchfeatureextractor0"


def test_extractor_pickles(net):
    extractor = TorchFeatureExtractor(net).fit(IMAGES)
    again = pickle.loads(pickle.dumps(extractor))
    assert_array_equal(again.transform(IMAGES), extractor.transform(IMAGES))


# --------------------------------------------------------------------------------------
# Errors


def test_extractor_names_the_layers_it_has(net):
    with pytest.raises(ValueError, match=r"layer='conv9' is not a submodule of Net.*'features\.0'"):
        TorchFeatureExtractor(net, layer="conv9").fit(IMAGES)


def test_extractor_says_that_a_layer_is_not_used(net):
    net.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="layer='spare' was not called"):
        TorchFeatureExtractor(net, layer="spare").fit(IMAGES)


def test_extractor_says_that_the_last_linear_layer_is_not_used(net):
    net.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"last linear layer of Net was not called.*layer="):
        TorchFeatureExtractor(net).fit(IMAGES)


@pytest.mark.parametrize("wrap", [lambda e: e, FrozenEstimator])
def test_extractor_refuses_an_estimator_without_a_network(wrap):
    fitted = LogisticRegression().fit(X, Y)
    with pytest.raises(TypeError, match="LogisticRegression, which holds no torch network"):
        TorchFeatureExtractor(wrap(fitted)).fit(X, Y)


def test_extractor_refuses_an_unfitted_frozen_classifier():
    with pytest.raises(NotFittedError):
        TorchFeatureExtractor(FrozenEstimator(ERMClassifier())).fit(X, Y)


def test_extractor_refuses_to_transform_before_fit(net):
    with pytest.raises(NotFittedError):
        TorchFeatureExtractor(net).transform(IMAGES)


def test_extractor_refuses_samples_of_another_shape(net):
    extractor = TorchFeatureExtractor(net).fit(IMAGES)
    with pytest.raises(ValueError, match=r"samples of shape \(3, 9, 8\)"):
        extractor.transform(np.zeros((2, 3, 9, 8), dtype=np.uint8))


@pytest.mark.parametrize("params", [{"output": "features"}, {"dtype": "int8"}, {"batch_size": 0}])
def test_extractor_checks_its_parameters(net, params):
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
        TorchFeatureExtractor(net, **params).fit(IMAGES)


@pytest.mark.parametrize("is_selecting", [False, True])
def test_a_fit_that_fails_leaves_the_extractor_as_it_was(is_selecting):
    class Fails(Callback):
        def on_epoch_end(self, *, row, **kwargs):
            raise RuntimeError("the callback fails")

    selector = (lambda extractor, X, y: 0.0) if is_selecting else None
    early = ERMClassifier(max_epochs=1, random_state=0)
    failing = ERMClassifier(max_epochs=1, callbacks=[Fails()], random_state=0)
    extractor = TorchFeatureExtractor(failing, output="proba", epoch_selector=selector)
    with pytest.raises(RuntimeError, match="the callback fails"):
        extractor.fit(X, Y)
    with pytest.raises(NotFittedError):
        extractor.transform(X)
    extractor.set_params(module=early).fit(X, Y)
    Z = extractor.transform(X)
    with pytest.raises(RuntimeError, match="the callback fails"):
        extractor.set_params(module=failing).fit(X[:, :3], Y)
    assert_array_equal(extractor.transform(X), Z)
    assert extractor.n_features_in_ == 6


def test_extractor_forgets_the_names_of_an_earlier_fit(net):
    early = ERMClassifier(max_epochs=1, random_state=0)
    extractor = TorchFeatureExtractor(early).fit(pd.DataFrame(X).rename(columns=str), Y)
    assert extractor.feature_names_in_.tolist() == list("012345")
    extractor.fit(X, Y)
    assert not hasattr(extractor, "feature_names_in_")
    extractor.set_params(module=net).fit(Pictures())
    assert not hasattr(extractor, "n_features_in_")


# --------------------------------------------------------------------------------------
# Hardness


@pytest.mark.fidelity
def test_hardness_is_the_embedding_along_the_difference_of_the_weights(net):
    extractor = TorchFeatureExtractor(net, output="hardness").fit(IMAGES)
    hardness = extractor.transform(IMAGES)
    assert hardness.shape == (20, 1)
    assert list(extractor.get_feature_names_out()) == ["torchfeatureextractor0"]
    embedding = TorchFeatureExtractor(net).fit_transform(IMAGES)
    weight = net.head.weight.detach().numpy()
    difference = weight[1] - weight[0]
    expected = embedding @ difference / np.sqrt((difference**2).sum())
    assert_allclose(hardness[:, 0], expected, atol=1e-5)
    # an affine map of the logit margin
    logits = TorchFeatureExtractor(net, output="logits").fit_transform(IMAGES)
    bias = net.head.bias.detach().numpy()
    margin = np.sqrt((difference**2).sum()) * hardness[:, 0] + (bias[1] - bias[0])
    assert_allclose(logits[:, 1] - logits[:, 0], margin, atol=1e-5)


@pytest.mark.fidelity
def test_hardness_does_not_see_what_is_orthogonal_to_its_direction():
    head = ERMClassifier(max_epochs=2, random_state=0).fit(X, Y)
    extractor = TorchFeatureExtractor(FrozenEstimator(head), output="hardness").fit(X)
    difference = np.subtract(*head.module_.weight.detach().numpy()[::-1])
    shift = RNG.normal(size=6)
    shift -= difference * (shift @ difference) / (difference @ difference)
    moved = (X + 10 * shift).astype(np.float32)
    assert_allclose(extractor.transform(moved), extractor.transform(X), atol=1e-4)
    along = (X + difference / np.linalg.norm(difference)).astype(np.float32)
    assert_allclose(extractor.transform(along), extractor.transform(X) + 1.0, atol=1e-4)


@pytest.mark.fidelity
def test_hardness_and_its_residual_make_up_the_embedding(net):
    both = TorchFeatureExtractor(net, output="hardness_residual").fit_transform(IMAGES)
    embedding = TorchFeatureExtractor(net).fit_transform(IMAGES)
    hardness = TorchFeatureExtractor(net, output="hardness").fit_transform(IMAGES)
    assert both.shape == (20, 1 + embedding.shape[1])
    assert_array_equal(both[:, :1], hardness)
    direction = np.subtract(*net.head.weight.detach().numpy()[::-1])
    direction /= np.linalg.norm(direction)
    assert_allclose(both[:, 1:] @ direction, 0.0, atol=1e-5)
    assert_allclose(both[:, 1:] + hardness * direction, embedding, atol=1e-5)


@pytest.mark.fidelity
def test_hardness_refuses_other_heads_and_names_the_extension():
    extractor = TorchFeatureExtractor(Net(n_classes=3), output="hardness")
    with pytest.raises(ValueError, match=r"has 3 outputs: use output='logits' and .*'margin'"):
        extractor.fit(IMAGES)


def test_a_disk_without_room_raises_and_leaves_no_file(tmp_path, monkeypatch):
    """Rows written to a map that the disk has no room for would kill the process."""

    def full(handle, start, size):
        assert size > 4 * 50  # all of it, before a row is written
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    X = np.ones((50, 3), dtype=np.float32)
    extractor = TorchFeatureExtractor(nn.Linear(3, 1), output="logits", memmap_dir=tmp_path)
    extractor.fit(X)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as caught:
        extractor.transform(X)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_room_is_taken_by_writing_where_the_system_cannot_reserve_it(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    X = np.arange(150, dtype=np.float32).reshape(50, 3)
    extractor = TorchFeatureExtractor(nn.Linear(3, 1), output="logits", memmap_dir=tmp_path)
    Z = extractor.fit(X).transform(X)
    assert_array_equal(Z, extractor.set_params(memmap_dir=None).transform(X))
