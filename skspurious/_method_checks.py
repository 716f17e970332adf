"""What a classifier must keep to be one of this package, as checks that anyone can run."""

import copy
import inspect
import pickle
import re

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from skspurious.base import BaseTorchClassifier
from skspurious.data import GroupedData
from skspurious.datasets import make_spurious_classification


def check_method(estimator, *, expected_failed_checks=None):
    """Run scikit-learn's checks of an estimator, and those of this package.

    Parameters
    ----------
    estimator : BaseTorchClassifier
        An instance with cheap settings. scikit-learn's checks call ``fit(X, y)`` on a few dozen
        samples, and want most of them to be right: a method that needs groups is given a
        ``group_inferrer``, and one that trains by steps, ``lr=0.1, max_epochs=10, batch_size=16``.
    expected_failed_checks : dict, default=None
        Names of scikit-learn's checks that may fail, each with the reason. With mini-batches, or
        groups of samples, a weight of 2 is not the same as two copies, so for many methods
        "check_sample_weight_equivalence_on_dense_data" belongs here.

    Raises
    ------
    TypeError
        If the estimator is not a BaseTorchClassifier.
    AssertionError
        If a check fails; it says which.

    Examples
    --------
    >>> from skspurious import ERMClassifier
    >>> from skspurious.extend import check_method
    >>> check_method(ERMClassifier(random_state=0))
    """
    if not isinstance(estimator, BaseTorchClassifier):
        raise TypeError(
            f"{type(estimator).__name__} is no BaseTorchClassifier; its checks are those of "
            "scikit-learn, sklearn.utils.estimator_checks.check_estimator."
        )
    check_estimator(clone(estimator), expected_failed_checks=expected_failed_checks, on_skip=None)
    bunch = make_spurious_classification(120, correlation_strength=0.9, random_state=0)
    data = bunch.data.astype(np.float32), bunch.target, bunch.sample_group
    for check in CHECKS:
        given = clone(estimator).set_params(random_state=0, max_epochs=3, batch_size=32)
        try:
            check(given, *copy.deepcopy(data))
        except AssertionError as error:
            raise AssertionError(f"{check.__name__}: {error}") from None


def _parameters(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()])


def _global_states():
    """The states of the global generators, to compare."""
    numpy_state = np.random.get_state(legacy=False)["state"]
    return numpy_state["key"].tolist(), numpy_state["pos"], torch.get_rng_state().tolist()


def _require(holds, message):
    if not holds:
        raise AssertionError(message)


def check_groups_come_in_every_way(clf, X, y, group):
    """Given and carried groups train the same network; without groups there is one, or an error."""
    given = clone(clf).fit(X, y, sample_group=group)
    carried = clone(clf).set_params(group_inferrer=None).fit(GroupedData(X, group), y)
    by_hand = clone(clf).set_params(group_inferrer=None).fit(X, y, sample_group=group)
    same = torch.equal(_parameters(by_hand), _parameters(carried))
    _require(same, "groups that X carries train another network than the same ones given")
    values = given.groups_.tolist()
    _require(values == [0, 1, 2, 3], f"groups_ is {values} where the groups 0 to 3 are given")
    bare = clone(clf).set_params(group_inferrer=None)
    try:
        bare.fit(X, y)
    except ValueError as error:
        ways = ("sample_group=", "GroupedData", "group_inferrer")
        _require(
            all(way in str(error) for way in ways),
            f"without groups fit says {error}; set _needs_groups = True for an error that "
            "names the ways to give them",
        )


def check_predict_takes_no_groups(clf, X, y, group):
    """Groups that X carries change no prediction; the score is that of the worst group."""
    clf.fit(X, y, sample_group=group)
    for name in ("predict", "predict_proba", "decision_function"):
        method = getattr(clf, name)
        same = np.array_equal(method(GroupedData(X, group)), method(X))
        _require(same, f"{name} depends on the groups that X carries")
    right = clf.predict(X) == y
    worst = min(right[group == g].mean() for g in np.unique(group))
    score = clf.score(X, y, sample_group=group)
    _require(np.isclose(score, worst), f"the worst group has {worst}, and score says {score}")


def check_the_seed_is_all(clf, X, y, group):
    """Same seed, same bits; other seed, other network; global generators are not touched."""
    before = _global_states()
    first, again, other = (
        clone(clf).set_params(random_state=seed).fit(X, y, sample_group=group) for seed in (0, 0, 1)
    )
    first.predict_proba(X)
    same = torch.equal(_parameters(first), _parameters(again))
    _require(same, "two fits with random_state=0 differ")
    differ = not torch.equal(_parameters(first), _parameters(other))
    _require(differ, "random_state=0 and random_state=1 give the same network")
    untouched = before == _global_states()
    _require(untouched, "NumPy's or torch's global generator was used; draw from the seeds")


def check_what_is_passed_stays(clf, X, y, group):
    """Neither the arrays nor a network that is passed are changed; a second fit starts anew."""
    before = X.copy(), y.copy(), group.copy()
    with torch.random.fork_rng():
        module = torch.nn.Sequential(torch.nn.Linear(X.shape[1], 4), torch.nn.Linear(4, 2))
    weights = copy.deepcopy(module.state_dict())
    clf.set_params(module=module).fit(X, y, sample_group=group)
    first = _parameters(clf)
    clf.fit(X, y, sample_group=group)
    _require(torch.equal(first, _parameters(clf)), "a second fit goes on where the first ended")
    for name, value in module.state_dict().items():
        _require(torch.equal(value, weights[name]), f"fit changes {name} of the user's module")
    unchanged = all(map(np.array_equal, before, (X, y, group)))
    _require(unchanged, "fit changes X, y or the groups in place")


def check_rows_are_those_of_x(clf, X, y, group):
    """With a part kept aside, what is learned of every sample has one entry for each row of X."""
    clf.set_params(early_stopping=True, validation_fraction=0.2).fit(X, y, sample_group=group)
    rows = np.sort(np.concatenate([clf.train_indices_, clf.validation_indices_]))
    shared = np.array_equal(rows, np.arange(len(X)))
    _require(shared, "train_indices_ and validation_indices_ do not share the rows of X")
    n_trained = len(clf.train_indices_)
    short = [
        name
        for name, value in vars(clf).items()
        if isinstance(value, np.ndarray) and value.shape[:1] == (n_trained,)
        if name != "train_indices_" and n_trained < len(X)
    ]
    message = f"{short} have no entry for the rows kept aside; use data.on_rows(values, fill)"
    _require(not short, message)


def check_copies(clf, X, y, group):
    """A pickled copy predicts the same."""
    clf.fit(X, y, sample_group=group)
    again = pickle.loads(pickle.dumps(clf))
    same = np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    _require(same, "a pickled copy predicts something else")


def check_documentation(clf, X, y, group):
    """Every parameter and every learned attribute is in the docstring."""
    clf.fit(X, y, sample_group=group)
    doc = inspect.cleandoc(type(clf).__doc__ or "")
    entries = {
        name
        for line in re.findall(r"^([\w, ]+)(?: : .*)?$", doc, re.M)
        for name in line.split(", ")
    }
    needed = set(inspect.signature(type(clf)).parameters)
    needed |= {k for k in vars(clf) if k.endswith("_") and not k.startswith("_")}
    missing = sorted(needed - entries)
    message = f"{missing} are not in the docstring of {type(clf).__name__}; its lines `shared "
    message += "parameters` and `shared attributes` stand for the shared ones"
    _require(not missing, message)


CHECKS = [
    check_the_seed_is_all,  # first: others compare two fits
    check_groups_come_in_every_way,
    check_predict_takes_no_groups,
    check_what_is_passed_stays,
    check_rows_are_those_of_x,
    check_copies,
    check_documentation,
]
