"""From what the user passes to ``fit`` to what is trained on: one frozen object."""

from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skspurious._engine._batches import LabelledSamples
from skspurious._engine._modules import weights_transform
from skspurious.data import TensorSamples, encode_groups, resolve_groups, unpack_groups
from skspurious.data._description import InputDescription, Reading
from skspurious.data._samples import input_kind
from skspurious.data._sources import pipeline_drops_groups, steps_of, takes_attribute
from skspurious.functional._split import stratified_split
from skspurious.utils._parameters import shallow_copy
from skspurious.utils._rows import as_column, as_labels, validate_table
from skspurious.utils._sklearn_compat import _check_sample_weight, _check_y
from skspurious.utils._warnings import warn

_FEWEST_IDS = 10  # samples; a group of each of fewer may be meant
_INPUT_ATTRIBUTES = ("n_features_in_", "feature_names_in_")


@dataclass(frozen=True)
class FitData:
    """What a method trains on; nothing in it changes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels; samples have their numbers.
    train, valid : LabelledSamples
        Samples to train on, and to look at after each epoch (or None). Their ``rows`` are those
        of the X that the user passed to ``fit``, or as ``X_val``.
    n_samples : int
        Rows of the X that the user passed.
    is_split : bool
        Whether ``valid`` was kept aside from X; its ``rows`` are then rows of X too.
    groups, valid_groups : ndarray
        Values of the groups of ``train`` and of ``valid``.
    group_inferrer : estimator or None
        The fitted inferrer of the groups of ``train``.
    used_group_labels : dict
        Whether known groups were used: of "train" samples, of "validation" samples.
    description : InputDescription
        How X looked.
    input_attributes : dict
        ``n_features_in_`` and, of a DataFrame, ``feature_names_in_``.
    """

    classes: np.ndarray
    train: LabelledSamples
    valid: LabelledSamples | None
    n_samples: int
    is_split: bool
    groups: np.ndarray
    valid_groups: np.ndarray
    group_inferrer: object
    used_group_labels: dict
    description: InputDescription
    input_attributes: dict

    def on_rows(self, values, fill):
        """Values of the samples of ``train``, one for each row of X; other rows have ``fill``."""
        values = np.asarray(values)
        result = np.full((self.n_samples, *values.shape[1:]), fill, dtype=values.dtype)
        result[self.train.rows] = values
        return result


def prepare(
    estimator,
    X,
    y,
    *,
    sample_group=None,
    sample_weight=None,
    X_val=None,
    y_val=None,
    sample_group_val=None,
    group_inferrer=None,
    seeds=(0, 0),
):
    """Check and encode everything, and resolve where the groups come from.

    Parameters
    ----------
    estimator : BaseTorchClassifier
        Gives its parameters, its name, and what it needs; it is not changed.
    X, y, sample_group, sample_weight, X_val, y_val, sample_group_val
        What was passed to ``fit``.
    group_inferrer : estimator or None
        Unfitted; it is fitted on what the user passed.
    seeds : tuple of two ints
        Of the inferrer, and of the part that is kept aside.

    Returns
    -------
    data : FitData
    """
    reader = shallow_copy(estimator)  # on which scikit-learn notes number and names of features
    samples, y, description = read_training_input(reader, unpack_groups(X)[0], y)
    classes, code = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs samples of at least 2 classes; y has one class: "
            f"{classes.tolist()[0]!r}."
        )
    found = resolve_groups(
        X, y, sample_group=sample_group, group_inferrer=group_inferrer, seed=seeds[0]
    )
    group, groups = None, np.empty(0, dtype=np.int64)
    if found.sample_group is not None:
        group, groups = _encode_groups(estimator, found.sample_group, len(y))
    elif estimator._needs_groups:
        raise ValueError(groups_missing(type(estimator).__name__))
    if estimator._balances_groups:
        warn_about_groups_of_nothing(estimator, found.group_inferrer)
    train = _label(samples, code, group, len(groups), _check_weight(sample_weight, code))
    data = FitData(
        classes=classes,
        train=train,
        valid=None,
        n_samples=len(train),
        is_split=False,
        groups=groups,
        valid_groups=groups,
        group_inferrer=found.group_inferrer,
        used_group_labels={"train": found.are_labels, "validation": False},
        description=description,
        input_attributes={k: v for k, v in vars(reader).items() if k in _INPUT_ATTRIBUTES},
    )
    if X_val is not None:
        own = None if group_inferrer is None else found.group_inferrer
        return _with_validation(reader, data, X_val, y_val, sample_group_val, own)
    if y_val is not None or sample_group_val is not None:
        raise ValueError("y_val and sample_group_val go with X_val, which is missing.")
    if estimator._keeps_part_aside:
        data = _split(estimator, data, seeds[1])
    if group is None and estimator.early_stopping:
        warn_about_dropped_groups(estimator, "early stopping looks at plain accuracy")
    return data


# --------------------------------------------------------------------------------------
# X and y


def read_training_input(estimator, X, y):
    """Samples, labels as an array, and the description of the samples; lengths are compared."""
    if input_kind(X) == "table":
        X, y = validate_table(estimator, X, as_labels(y, "y"), dtype=np.float32)
        samples, description = InputDescription.of(X, _reading(estimator))
    else:
        if y is None:
            raise ValueError(
                f"This {type(estimator).__name__} estimator requires y to be passed, but the "
                "target y is None. Pass the labels as y, also for datasets that hold them."
            )
        y = _check_y(as_labels(y, "y"), estimator=estimator)
        samples, description = read_unlabelled_input(estimator, X)
        check_consistent_length(samples, y)
    check_classification_targets(y)
    return samples, y, description


def read_unlabelled_input(estimator, X):
    """Samples, and their description; ``estimator`` gets what scikit-learn asks for."""
    if input_kind(X) == "table":
        X = validate_table(estimator, X, dtype=np.float32)
        return InputDescription.of(X, _reading(estimator))
    for name in _INPUT_ATTRIBUTES:  # of an earlier fit, on another kind of X
        vars(estimator).pop(name, None)
    samples, description = InputDescription.of(X, _reading(estimator))
    if isinstance(samples, TensorSamples):
        estimator.n_features_in_ = samples.sample_shape[0]
    return samples, description


def read_input(estimator, X, description, name="X"):
    """Samples of any other X, in the form of those that were fitted on."""
    if input_kind(X, name) == "table":
        X = validate_table(estimator, X, reset=False, dtype=np.float32)
    return description.read(X, _reading(estimator, name))


def _reading(estimator, name="X"):
    """How an estimator reads what the user calls by a name."""
    preprocessing = weights_transform(estimator.module, estimator.weights)
    return Reading(
        name=type(estimator).__name__,
        argument=name,
        collate_fn=estimator.collate_fn,
        image_size=_check_size(estimator.image_size),
        preprocessing=preprocessing if estimator.eval_transform is None else None,
        channels=3 if isinstance(estimator.module, str) else None,  # torchvision's have three
        is_linear=estimator.module is None,
        bytes_matter=estimator.eval_transform is not None,
        any_size=preprocessing is not None,
    )


def _check_size(size):
    """Height and width, or None."""
    if size is None:
        return None
    size = (size, size) if isinstance(size, Integral) else tuple(size)
    if len(size) != 2 or not all(isinstance(side, Integral) and side > 0 for side in size):
        raise ValueError(f"image_size must be an integer, or a height and a width; got {size!r}.")
    return size


def _check_weight(sample_weight, code):
    if sample_weight is None:
        return None
    weight = as_column(sample_weight, "sample_weight")
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused
            weight = _check_sample_weight(weight, code, dtype=np.float32, ensure_non_negative=True)
    except OverflowError as error:
        raise ValueError(f"sample_weight has a number that no float holds: {error}.") from error
    return torch.from_numpy(weight)


def _encode_groups(estimator, sample_group, n_samples):
    """Numbers and values of the groups of the training samples."""
    group, groups = encode_groups(sample_group, n_samples=n_samples)
    if estimator._balances_groups and len(groups) == n_samples >= _FEWEST_IDS:
        raise ValueError(
            f"sample_group has {n_samples} groups of {n_samples} samples, one for each, as numbers "
            f"of rows or measurements have; {type(estimator).__name__} balances groups of several "
            "samples. Bin a measurement (numpy.digitize), or pass the columns of attributes."
        )
    return group, groups


def _label(samples, code, group, n_groups, weight=None):
    return LabelledSamples(
        samples,
        torch.from_numpy(code.astype(np.int64)),
        None if group is None else torch.from_numpy(group),
        weight,
        n_groups,
    )


# --------------------------------------------------------------------------------------
# Validation samples: given, or kept aside


def _with_validation(reader, data, X, y, sample_group, group_inferrer):
    """The data with validation samples, whose groups are given, inferred or carried."""
    samples = unpack_groups(X)[0]
    if y is None:
        raise ValueError("X_val needs y_val, the class labels of its samples.")
    read = read_input(reader, samples, data.description, name="X_val")
    y = column_or_1d(as_labels(y, "y_val"))
    check_consistent_length(read, y)
    unseen = np.setdiff1d(y, data.classes)
    if len(unseen):
        raise ValueError(f"y_val has classes that are not in y: {unseen[:5].tolist()}.")
    _warn_about_far_samples(data.train.samples, read)
    found = resolve_groups(
        X,
        y,
        sample_group=sample_group,
        group_inferrer=group_inferrer,
        fallback=data.group_inferrer,
    )
    used = {**data.used_group_labels, "validation": found.are_labels}
    group, groups, values = None, data.groups, data.groups
    n_train_groups = data.train.n_groups
    if found.sample_group is not None:
        name = "sample_group_val" if sample_group is not None else "the groups of X_val"
        group, values = encode_groups(found.sample_group, n_samples=len(y), name=name)
        if data.train.group is None:
            groups = values
        elif used["train"] == found.are_labels:
            # Training codes stay; values of their own come after.
            values = groups = _union(groups, values)
            group, _ = encode_groups(found.sample_group, groups=values)
            n_train_groups = len(values)
        # Otherwise labels on one side and inferred groups on the other: never mixed.
    return replace(
        data,
        train=replace(data.train, n_groups=n_train_groups),
        valid=_label(read, np.searchsorted(data.classes, y), group, len(values)),
        groups=groups,
        valid_groups=values,
        used_group_labels=used,
    )


def _split(estimator, data, seed):
    """Keep a part of the samples aside for validation, stratified by class and group."""
    train = data.train
    strata = train.y.numpy()
    if train.group is not None and estimator._splits_by_group:
        strata = strata * train.n_groups + train.group.numpy()
    _, strata = np.unique(strata, return_inverse=True)
    rng = np.random.default_rng(seed)
    fit_rows, valid_rows = stratified_split(strata, estimator.validation_fraction, rng)
    if len(valid_rows) == 0:
        raise ValueError(
            f"validation_fraction={estimator.validation_fraction} of {len(train)} samples leaves "
            "none for validation. Give X_val and y_val, or more samples."
        )
    used = data.used_group_labels
    return replace(
        data,
        train=train.take(fit_rows),
        valid=train.take(valid_rows),
        is_split=True,
        used_group_labels={**used, "validation": used["train"]},
    )


def _warn_about_far_samples(train, valid):
    """Warn where validation rows lie outside the training columns, as unscaled ones do."""
    tables = [s.tensor for s in (train, valid) if isinstance(s, TensorSamples)]
    if len(tables) < 2 or any(t.ndim != 2 or not t.is_floating_point() for t in tables):
        return
    low, high = tables[0].aminmax(dim=0)
    outside = (tables[1] < low) | (tables[1] > high)
    n_far = int((outside.float().mean(dim=0) > 0.5).sum())
    if n_far and min(map(len, tables)) >= _FEWEST_ROWS:
        warn(
            f"more than half of X_val lies outside the range of X in {n_far} of {len(low)} "
            "columns, as where X was scaled and X_val was not. A Pipeline of scikit-learn "
            "transforms X alone; skspurious.pipeline.make_pipeline transforms X_val too."
        )


_FEWEST_ROWS = 20  # of either; the range of fewer says little


def groups_missing(name):
    """What to say where groups are needed and there are none."""
    may_have = "has" if pipeline_drops_groups() else "may have"
    return (
        f"{name} needs the group of every training sample and has none. Give them in one of "
        "three ways: fit(X, y, sample_group=g); X as GroupedData(X, g), which also reaches fit "
        "inside GridSearchCV and cross_validate (with metadata routing off they pass "
        "sample_group= on only under that name, never groups=); or "
        f"{name}(group_inferrer=...), which infers them without labels, or, as "
        "SemiSupervisedGroupInferrer, from a sample_attribute that is known of some samples and "
        "that X carries. In a Pipeline of "
        f"scikit-learn a step before {may_have} dropped the groups that X carried: "
        "skspurious.pipeline.make_pipeline carries them through every step. To see this error "
        "in a search, pass error_score='raise'."
    )


def warn_about_groups_of_nothing(estimator, inferrer):
    """Warn where groups were inferred of which balancing repairs nothing, beyond doubt."""
    *before, last = steps_of(inferrer)
    if not hasattr(last, "evidence_of_nothing") or takes_attribute(last):  # labels are something
        return
    if any(hasattr(step, "fit") and get_tags(step).target_tags.required for step in before):
        return  # a representation that was fitted to the labels says nothing on the same samples
    evidence = last.evidence_of_nothing()
    if evidence is not None:
        figures = evidence.figures
        warn(
            f"{type(estimator).__name__} balances groups that rest on nothing: by "
            f"{type(last).__name__}, a linear head errs on {figures['error_misled']:.2f} of the "
            f"smaller parts of the classes, and balancing recovers {figures['recovered']:.3f} of "
            f"their accuracy, at most {figures['recovered_high']:.3f}. Look for groups by views "
            "(ViewJury), or by labels of a few samples (SemiSupervisedGroupInferrer); "
            "AutoRetrainer keeps plain training where it finds no shortcut."
        )


def warn_about_dropped_groups(estimator, consequence):
    """Warn where a Pipeline of scikit-learn was given groups that did not arrive."""
    if pipeline_drops_groups():
        warn(
            f"the groups that X carried into the Pipeline did not reach {type(estimator).__name__}"
            f", so {consequence}: a step before made an array of them. "
            "skspurious.pipeline.make_pipeline carries groups through every step."
        )


def _union(known, values):
    """Two sets of group values, the known ones first."""
    extra = [v for v in values.tolist() if v not in set(known.tolist())]
    if not extra:
        return known
    union = np.empty(len(known) + len(extra), dtype=object)
    union[:] = known.tolist() + extra
    return union
