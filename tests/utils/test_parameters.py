"""Shared constructor parameters: written once, seen everywhere."""

import inspect
import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torchvision.transforms import v2

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
)
from skspurious.group_inference import KMeansGroups
from skspurious.utils._parameters import extends, nearest_names


class Base(BaseEstimator):
    """Base.

    Parameters
    ----------
    module : object, default=None
        The base's words on module.
    lr : float, default=0.1
        Learning rate,
        in two lines.
    seed : int, default=0
        Seed.

    Attributes
    ----------
    module_ : object
        Not a parameter.
    """

    def __init__(self, module=None, *, lr=0.1, seed=0):
        self.module = module
        self.lr = lr
        self.seed = seed


@extends(Base)
class Method(Base):
    """Method.

    Parameters
    ----------
    module : object, default=None
        The method's words on module.
    power : float, default=2.0
        Power.
    shared parameters

    Attributes
    ----------
    power_ : float
        Learned.
    shared attributes
    """

    def __init__(self, module=None, *, power=2.0, **shared):
        super().__init__(module, **shared)
        self.power = power


def test_extends_gives_an_ordinary_signature_own_parameters_first():
    parameters = inspect.signature(Method).parameters
    assert list(parameters) == ["module", "power", "lr", "seed"]
    assert {name: p.default for name, p in parameters.items()} == {
        "module": None,
        "power": 2.0,
        "lr": 0.1,
        "seed": 0,
    }
    assert parameters["lr"].kind is inspect.Parameter.KEYWORD_ONLY
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def test_extends_works_with_get_params_set_params_and_clone():
    method = Method("m", lr=0.5, power=3.0)
    assert method.get_params() == {"module": "m", "power": 3.0, "lr": 0.5, "seed": 0}
    assert clone(method.set_params(seed=7)).get_params() == method.get_params()
    assert repr(method) == "Method(lr=0.5, module='m', power=3.0, seed=7)"


def test_extends_leaves_the_base_alone():
    assert list(inspect.signature(Base).parameters) == ["module", "lr", "seed"]
    assert "power" not in Base.__doc__


def test_extends_refuses_unknown_parameters():
    with pytest.raises(TypeError, match=r"^Method has no parameter 'momentum'\. Choose one of \["):
        Method(momentum=0.9)


class Heir(Method):
    """A subclass without the decorator."""


@extends(Method)
class Further(Method):
    """A subclass with it.

    Parameters
    ----------
    depth : int, default=1
        Depth.
    shared parameters
    """

    def __init__(self, module=None, *, depth=1, **shared):
        super().__init__(module, **shared)
        self.depth = depth


@pytest.mark.parametrize(
    ("cls", "name", "nearest"),
    [
        (Method, "powr", "power"),
        (Heir, "powr", "power"),
        (Further, "powr", "power"),
        (Further, "dept", "depth"),
        (Further, "seeds", "seed"),
        (GroupDROClassifier, "max_epoch", "max_epochs"),
        (GroupDROClassifier, "step_sizes", "step_size"),
        (TorchFeatureExtractor, "batchsize", "batch_size"),
    ],
)
def test_a_misspelt_parameter_names_the_class_and_the_nearest_name(cls, name, nearest):
    message = f"{cls.__name__} has no parameter {name!r}; did you mean {nearest!r}\\?"
    with pytest.raises(TypeError, match=f"^{message}"):
        cls(**{name: 1})


def test_set_params_of_a_misspelt_name_proposes_the_nearest_and_changes_nothing():
    clf = GroupDROClassifier(lr=0.5)
    message = "GroupDROClassifier has no parameter 'max_epoch'; did you mean 'max_epochs'"
    with pytest.raises(ValueError, match=message):
        clf.set_params(lr=0.1, max_epoch=3)
    assert clf.lr == 0.5
    assert clf.set_params(max_epochs=3).max_epochs == 3
    with pytest.raises(ValueError, match="did you mean 'group_inferrer'"):
        clf.set_params(group_inferer__random_state=3)


def test_extends_puts_the_base_words_where_the_marker_stood():
    doc = inspect.getdoc(Method)
    assert doc == (
        "Method.\n\nParameters\n----------\n"
        "module : object, default=None\n    The method's words on module.\n"
        "power : float, default=2.0\n    Power.\n"
        "lr : float, default=0.1\n    Learning rate,\n    in two lines.\n"
        "seed : int, default=0\n    Seed.\n\n"
        "Attributes\n----------\npower_ : float\n    Learned.\n"
        "module_ : object\n    Not a parameter."
    )


def test_extends_puts_an_own_parameter_without_words_first_with_the_words_of_the_base():
    @extends(Base)
    class Plain(Base):
        """Plain.

        Parameters
        ----------
        power : float, default=2.0
            Power.
        shared parameters

        Attributes
        ----------
        """

        def __init__(self, module=None, *, power=2.0, **shared):
            super().__init__(module, **shared)
            self.power = power

    words = [line for line in inspect.getdoc(Plain).splitlines() if " : " in line]
    assert [line.split(" : ")[0] for line in words] == ["module", "power", "lr", "seed"]
    assert "The base's words on module." in Plain.__doc__


def test_extends_gives_a_class_that_pickles():
    again = pickle.loads(pickle.dumps(Method("m", lr=0.5)))
    assert again.get_params() == {"module": "m", "power": 2.0, "lr": 0.5, "seed": 0}


# --------------------------------------------------------------------------------------
# Parameters that are torch modules


ODD = v2.RandomAffine(10)  # has a static method get_params, with arguments
ODD_COMPOSED = v2.Compose([ODD])


@pytest.mark.parametrize(
    "estimator",
    [
        ERMClassifier(train_transform=ODD, group_inferrer=SpuriousGroupInferrer()),
        TorchFeatureExtractor(ERMClassifier(train_transform=ODD), eval_transform=ODD),
    ],
    ids=["classifier", "extractor"],
)
def test_a_transform_with_get_params_is_a_value(estimator):
    name = "train_transform" if hasattr(estimator, "train_transform") else "eval_transform"
    assert estimator.get_params()[name] is ODD
    twin = clone(estimator)
    assert getattr(twin, name) is not ODD  # copied, as scikit-learn copies what is no estimator
    assert twin.get_params()[name].degrees == ODD.degrees
    assert twin.set_params(**{name: None}).get_params()[name] is None
    assert getattr(estimator, name) is ODD
    assert "RandomAffine" in repr(estimator)


def test_estimators_inside_are_descended_into():
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=3))
    clf = ERMClassifier(train_transform=ODD, group_inferrer=inferrer)
    assert clf.get_params()["group_inferrer__method__n_clusters"] == 3
    twin = clone(clf.set_params(group_inferrer__method__n_clusters=4))
    assert twin.group_inferrer.method.n_clusters == 4
    assert twin.group_inferrer is not inferrer
    assert not any("__" in name for name in clf.get_params(deep=False))


def test_a_clone_keeps_requests_for_metadata():
    with config_context(enable_metadata_routing=True):
        clf = ERMClassifier(train_transform=ODD).set_fit_request(sample_weight=True)
        assert clone(clf).get_metadata_routing().fit.requests["sample_weight"] is True


def test_a_search_with_a_transform():
    X = np.random.default_rng(0).random((12, 1, 4, 4), dtype=np.float32)
    clf = ERMClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), max_epochs=1, train_transform=ODD
    )
    # A list of such transforms to choose from is cloned by scikit-learn itself: compose them.
    grid = {"train_transform": [ODD_COMPOSED], "lr": [0.1]}
    for params in ({"lr": [0.1, 0.01]}, grid):
        search = GridSearchCV(clf, params, cv=2, error_score="raise").fit(X, np.arange(12) % 2)
        assert search.best_estimator_.train_transform is not None


# --------------------------------------------------------------------------------------
# Names that are nearly right


def test_nearest_names_by_hand():
    known = ["resnet18", "resnet34", "vgg11"]
    assert nearest_names("resnet181", known) == "; did you mean 'resnet18'?"
    assert nearest_names("resnet", known, n=2) == "; did you mean 'resnet34' or 'resnet18'?"
    assert nearest_names("x", known) == ". Choose one of ['resnet18', 'resnet34', 'vgg11']."


def test_a_misspelt_network_is_told_of_classifiers():
    clf = ERMClassifier("resnet181", max_epochs=1)
    X = np.zeros((4, 3, 32, 32), dtype=np.float32)
    with pytest.raises(ValueError, match=r"'resnet181' is not .*; did you mean 'resnet18', 'resn"):
        clf.fit(X, [0, 1, 0, 1])
