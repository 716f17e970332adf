"""Shared constructor parameters: written once, seen everywhere."""

import inspect
import pickle

import pytest
from sklearn.base import BaseEstimator, clone

from skspurious.utils._parameters import extends


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
    with pytest.raises(TypeError, match="unexpected keyword argument 'momentum'"):
        Method(momentum=0.9)


def test_extends_puts_the_base_words_where_the_marker_stood():
    doc = inspect.getdoc(Method)
    assert doc == (
        "Method.\n\nParameters\n----------\n"
        "module : object, default=None\n    The method's words on module.\n"
        "power : float, default=2.0\n    Power.\n"
        "lr : float, default=0.1\n    Learning rate,\n    in two lines.\n"
        "seed : int, default=0\n    Seed.\n\n"
        "Attributes\n----------\npower_ : float\n    Learned."
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
