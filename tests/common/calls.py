"""A good call of every public name that takes data: what the generated tests spoil.

``CALLS`` has them by name; ``test_fuzz.py`` fails for a name that is missing.
"""

import functools
import os
import tempfile
from dataclasses import dataclass, field

import numpy as np
import torch
from registry import ENTRIES, QUICK, VIEWS, by_name, small_pairs, small_pictures, small_texts
from sklearn.model_selection import GridSearchCV
from torch import nn

from skspurious import (
    ERMClassifier,
    GroupedData,
    SpuriousGroupInferrer,
    data,
    datasets,
    functional,
    inspection,
    metrics,
    model_selection,
    persistence,
    pipeline,
)
from skspurious.data import encode_groups, unpack_groups
from skspurious.group_inference import (
    DispersionGroups,
    EIILGroups,
    ErrorGroups,
    GaussianMixtureGroups,
    KMeansGroups,
    SpareGroups,
    XRMGroups,
    evidence_of,
    suggest_annotations,
)
from skspurious.views import standard_views

# 40 rows of two classes and four groups, of 16, 4, 16 and 4; every number is exact in float16.
Y = np.arange(40) % 2
ATTRIBUTE = np.where(np.arange(40) % 10 < 8, Y, 1 - Y)
GROUP = 2 * Y + ATTRIBUTE
X = np.stack(
    [
        2.0 * Y - 1 + (np.arange(40) * 7 % 13) / 4,
        4.0 * ATTRIBUTE - 2 + (np.arange(40) * 5 % 11) / 8,
        (np.arange(40) * 3 % 17) / 8 - 1,
    ],
    axis=1,
).astype(np.float32)
WEIGHT = 0.5 + (np.arange(40) % 4) / 4
PARTLY = np.where(np.arange(40) < 20, ATTRIBUTE, np.nan)
PREDICTED = np.where(np.arange(40) % 7 == 0, 1 - Y, Y)


@dataclass(frozen=True)
class Call:
    """A good call.

    Parameters
    ----------
    function : callable
        Called with all arguments by name; what it returns is compared.
    arguments : dict from str to (kind, value)
        What can be spoiled.
    fixed : dict
        Other arguments.
    words : tuple of str
        What an error may say in place of the name of an argument.
    weight : int
        How often it is drawn, in proportion.
    is_strict : bool
        Whether other containers of the same values are taken; otherwise they may be refused.
    optional : tuple of str
        Arguments for which None is right.
    gives_nan : bool
        Whether NaN in the answer says something, such as a group without samples.
    tolerance : float
        Relative, by which answers may differ.
    without : tuple of str
        Spoilers that are left out: what they do is not ours.
    """

    function: object
    arguments: dict
    fixed: dict = field(default_factory=dict)
    words: tuple = ()
    weight: int = 4
    is_strict: bool = True
    optional: tuple = ()
    gives_nan: bool = False
    tolerance: float = 1e-4
    without: tuple = ()


CALLS = {}


def _add(name, function, arguments, **settings):
    CALLS[name] = Call(function, arguments, **settings)


# ------------------------------------------------------------------------ estimators

FIT = {"X": ("table", X), "y": ("labels", Y)}
SHARED_FIT = FIT | {
    "sample_group": ("groups", GROUP),
    "sample_weight": ("weights", WEIGHT),
    "X_val": ("table", X[4:24]),
    "y_val": ("labels", Y[4:24]),
    "sample_group_val": ("groups", GROUP[4:24]),
}
SCORE = FIT | {"sample_group": ("groups", GROUP), "sample_weight": ("weights", WEIGHT)}


# A step of scikit-learn gets X as it is; a jury's frame may have columns of any kind.
WITHOUT = {
    "Pipeline": ("grad_tensor", "bfloat16_tensor", "large_doubles", "huge", "nat"),
    # Equal rows: right, but the head's solver takes seconds.
    "AutoRetrainer": ("constant", "zeros", "equal_rows", "matrix_of_strides_zero"),
    "ViewJury": ("frame_with_na", "frame_with_texts"),
}
BY_NAME = by_name(ENTRIES)


def _new(entry):
    epochs = {"max_epochs": 2} if entry.is_classifier else {}
    if entry.shared:
        return entry(**{**QUICK, **epochs})
    return entry(**({"random_state": 0} if "random_state" in entry().get_params() else {}))


def _fit(entry, X, y, **given):
    estimator = _new(entry).fit(X, y, **given)
    if entry.is_classifier:
        return estimator.decision_function(X)
    for name in ("labels_", "scores_"):
        if hasattr(estimator, name):
            return getattr(estimator, name)
    return estimator.predict(X) if hasattr(estimator, "predict") else estimator.transform(X)


@functools.cache
def _fitted(name):
    """A fitted classifier, or an inferrer by the name of its method."""
    if name not in BY_NAME:
        return SpuriousGroupInferrer(name, random_state=0).fit(X, Y)
    entry = BY_NAME[name]
    return _new(entry).fit(X, Y, **({"sample_group": GROUP} if entry.needs_groups else {}))


def _add_estimators():
    for entry in ENTRIES:
        name = entry.name
        weight = 3 if entry.stages == 1 else 1
        if entry.is_classifier:
            needs = () if entry.needs_groups else ("sample_group",)
            optional = (*needs, "sample_weight", "sample_group_val", "X_val", "y_val")
            _add(
                f"{name}.fit",
                functools.partial(_fit, entry),
                SHARED_FIT,
                optional=optional,
                weight=weight,
                without=WITHOUT.get(name, ()),
            )
            for method in ("predict", "predict_proba", "decision_function"):
                _add(
                    f"{name}.{method}",
                    lambda X, n=name, m=method: getattr(_fitted(n), m)(X),
                    {"X": ("table", X)},
                    weight=1,
                )
            _add(
                f"{name}.score",
                lambda n=name, **given: _fitted(n).score(**given),
                SCORE,
                weight=1,
                optional=("sample_group", "sample_weight"),
            )
        elif hasattr(entry.cls, "fit"):
            attribute = {"sample_attribute": ("attribute", PARTLY)}
            takes = name == "SemiSupervisedGroupInferrer"
            _add(
                f"{name}.fit",
                functools.partial(_fit, entry),
                FIT | (attribute if takes else {}),
                optional=("y", "sample_attribute"),
                weight=weight,
                without=WITHOUT.get(name, ()),
            )


_add_estimators()

for _method in ("kmeans", "gmm", "spare", "dispersion", "error", "xrm", "eiil"):
    _add(
        f"SpuriousGroupInferrer({_method!r}).fit",
        lambda X, y, m=_method: SpuriousGroupInferrer(m, random_state=0).fit(X, y).labels_,
        FIT,
        weight=1,
    )
    _add(
        f"SpuriousGroupInferrer({_method!r}).predict",
        lambda X, y, m=_method: _fitted(m).predict(X, y=y),
        FIT,
        weight=1,
        optional=("y",),
    )

OF_METHODS = {
    "DispersionGroups": DispersionGroups,
    "EIILGroups": EIILGroups,
    "ErrorGroups": ErrorGroups,
    "GaussianMixtureGroups": GaussianMixtureGroups,
    "KMeansGroups": KMeansGroups,
    "SpareGroups": SpareGroups,
    "XRMGroups": XRMGroups,
}


def _group_by(X, y, method):
    return SpuriousGroupInferrer(method(), random_state=0).fit_transform(X, y).sample_group


for _name, _cls in OF_METHODS.items():
    _add(f"group_inference.{_name}", _group_by, FIT, fixed={"method": _cls}, weight=1)

_samples = {"pictures": small_pictures()[0], "texts": small_texts()[0], "pairs": small_pairs()[0]}


def _viewed(X, entry):
    y = np.arange(len(_samples[entry.samples])) % 2
    return entry().fit(_samples[entry.samples], y).transform(X)


for _entry in VIEWS:
    _add(
        f"views.{_entry.name}",
        _viewed,
        {"X": (_entry.samples, _samples[_entry.samples])},
        fixed={"entry": _entry},
        words=("sample", "picture", "pictures", "text", "texts", "field"),
        gives_nan=True,
        tolerance=1e-2 if _entry.name == "PatchFeatures" else 1e-4,  # sizes of uint8 are rounded
        weight=3,
    )

# ------------------------------------------------------------------------ metrics, data, splits

PREDICTIONS = {
    "y_true": ("labels", Y),
    "y_pred": ("labels", PREDICTED),
    "sample_group": ("groups", GROUP),
}
WEIGHTED = PREDICTIONS | {"sample_weight": ("weights", WEIGHT)}
for _name in ("group_accuracy", "worst_group_accuracy", "worst_group_error"):
    _add(
        f"metrics.{_name}", getattr(metrics, _name), WEIGHTED, optional=("sample_weight",), weight=8
    )
for _name in ("group_metric", "worst_group_metric"):
    _add(
        f"metrics.{_name}",
        functools.partial(getattr(metrics, _name), "f1"),
        WEIGHTED | {"sample_group": ("groups", ATTRIBUTE)},
        fixed={"zero_division": 0.0},
        optional=("sample_weight",),
        weight=4,
    )
TRAIN = {"train_group": ("groups", GROUP[::-1].copy())}
for _name in ("adjusted_accuracy", "group_report"):
    _add(
        f"metrics.{_name}",
        getattr(metrics, _name),
        PREDICTIONS | TRAIN,
        optional=("train_group",),
        gives_nan=True,
    )
_add(
    "metrics.cluster_robust_accuracy",
    metrics.cluster_robust_accuracy,
    {k: v for k, v in PREDICTIONS.items() if k != "sample_group"}
    | {"cluster": ("groups", ATTRIBUTE)},
)
_add(
    "metrics.group_inference_report",
    metrics.group_inference_report,
    {
        "sample_group_true": ("groups", GROUP),
        "sample_group_inferred": ("groups", 2 * Y + (X[:, 1] > 0)),
        "y": ("labels", Y),
    },
    gives_nan=True,
)
_add(
    "metrics.group_sample_weight",
    metrics.group_sample_weight,
    {"y": ("labels", Y), "sample_group": ("groups", GROUP)},
)


@functools.cache
def _head():
    return ERMClassifier(**QUICK).fit(X, Y)


def _score(X, y, sample_group, sample_weight, scorer):
    return scorer(_head(), X, y, sample_group=sample_group, sample_weight=sample_weight)


_add(
    "metrics.worst_group_scorer",
    _score,
    SCORE,
    fixed={"scorer": metrics.worst_group_scorer},
    optional=("sample_weight",),
)
_add(
    "metrics.make_worst_group_scorer",
    _score,
    SCORE,
    fixed={"scorer": metrics.make_worst_group_scorer("neg_log_loss")},
    optional=("sample_weight",),
)


def _carried(data, sample_group, sample_attribute=None):
    """Numbers of the groups that GroupedData carries."""
    group = unpack_groups(GroupedData(data, sample_group, sample_attribute=sample_attribute))[1]
    return None if group is None else encode_groups(group)[0]


_add(
    "data.GroupedData",
    _carried,
    {
        "data": ("samples", X),
        "sample_group": ("groups", GROUP),
        "sample_attribute": ("attribute", PARTLY),
    },
    optional=("sample_group", "sample_attribute"),
    words=("X",),
    gives_nan=True,
)
_add(
    "data.unpack_groups",
    lambda X, sample_group: _carried(X, sample_group),
    {"X": ("samples", X), "sample_group": ("groups", GROUP)},
    words=("data",),
    gives_nan=True,
)
_add(
    "data.encode_groups",
    lambda sample_group: data.encode_groups(sample_group, n_samples=40)[0],
    {"sample_group": ("groups", GROUP)},
    weight=8,
)
_add(
    "data.make_sample_group",
    data.make_sample_group,
    {"y": ("labels", Y), "attribute": ("groups", ATTRIBUTE)},
    weight=8,
)
_add(
    "data.OverlappingGroups",
    lambda masks: data.OverlappingGroups(masks).masks,
    {"masks": ("masks", np.stack([Y, ATTRIBUTE], 1))},
    words=("mask",),
)
IN_SAMPLES = (
    "no_columns",
    "nan",
    "inf",
    "minus_inf",
    "nan_tensor",
    "column",
    "empty",
    "empty_list",
    "longer",
    "shorter",
)
_add(
    "data.as_samples",
    lambda X: data.as_samples(X).tensor.float(),
    {"X": ("table", X)},
    gives_nan=True,
    without=IN_SAMPLES,
)
_add(
    "data.infer_groups",
    lambda X, y: data.infer_groups(_fitted("kmeans"), X, y)[0],
    FIT,
    optional=("y",),
)
_add(
    "data.resolve_groups",
    lambda X, y: data.resolve_groups(X, y, group_inferrer=_fitted("kmeans")).sample_group,
    FIT,
    optional=("y",),
)
_add(
    "model_selection.EveryGroupKFold",
    lambda y, sample_group: list(
        model_selection.EveryGroupKFold(2).split(X, y, sample_group=sample_group)
    ),
    {"y": ("labels", Y), "sample_group": ("groups", GROUP)},
)
_add(
    "model_selection.every_group_train_test_split",
    lambda X, y, sample_group: np.array(
        [
            *model_selection.every_group_train_test_split(
                X, y, sample_group=sample_group, random_state=0
            )[-1]
        ]
    ),
    FIT | {"X": ("samples", X), "sample_group": ("groups", GROUP)},
)


@functools.cache
def _search():
    search = GridSearchCV(ERMClassifier(**QUICK), {"max_epochs": [1, 2, 3]}, cv=2)
    return search.fit(X, Y)


_add(
    "model_selection.selection_trust",
    lambda X, y, sample_attribute: model_selection.selection_trust(
        _search(), X, y, sample_attribute, n_resamples=20
    ).candidates.to_numpy(),
    FIT | {"sample_attribute": ("attribute", PARTLY)},
    weight=1,
    gives_nan=True,
)
_add(
    "inspection.GroupAccuracyDisplay",
    lambda **given: inspection.GroupAccuracyDisplay.from_predictions(**given).report,
    PREDICTIONS,
    weight=1,
)
_add(
    "inspection.GroupGalleryDisplay",
    lambda X, sample_group: (
        inspection.GroupGalleryDisplay.from_data(X, sample_group=sample_group).sizes
    ),
    {"X": ("pictures", _samples["pictures"]), "sample_group": ("groups", GROUP[:24])},
    weight=1,
    is_strict=False,
)
_add(
    "inspection.shortcut_test",
    lambda **given: (
        inspection.shortcut_test(_head(), n_permutations=19, random_state=0, **given).p_value
    ),
    FIT | {"sample_group": ("groups", GROUP)},
    weight=1,
    is_strict=False,
    words=("picture", "pictures"),
    gives_nan=True,
)
_add(
    "group_inference.evidence_of",
    lambda **given: evidence_of(n_permutations=19, **given).level == "none",
    {"groups": ("groups", GROUP), **FIT},
    weight=1,
)
_add(
    "group_inference.suggest_annotations",
    lambda **given: suggest_annotations(k=5, **given),
    FIT | {"sample_attribute": ("attribute", PARTLY)},
    optional=("sample_attribute",),
    weight=2,
)
_add(
    "views.standard_views",
    lambda X: len(standard_views(X)),
    {"X": ("pictures", _samples["pictures"])},
    without=("five_dimensions", "table"),
    weight=1,
)

# ------------------------------------------------------------------------ functional

LOGITS = torch.tensor(X[:, :2])
CODES = torch.tensor(Y)


def _functional(name, arguments, **settings):
    fixed = settings.pop("fixed", {})
    _add(
        f"functional.{name}",
        getattr(functional, name),
        arguments,
        fixed=fixed,
        is_strict=False,
        weight=2,
        gives_nan=True,
        tolerance=settings.pop("tolerance", 1e-2),
        **settings,
    )


def _rng_call(name, column):
    def call(**given):
        return getattr(functional, name)(rng=np.random.default_rng(0), **given)

    _add(
        f"functional.{name}",
        call,
        {column: ("strata" if column == "strata" else "codes", GROUP)},
        is_strict=False,
        weight=2,
        words=("strata",),
    )


_TABLE, _LABEL = ("tensor", X), ("code_tensor", Y)
_SUMS = ("tensor", np.array([4.0, 1.0, 2.0, 0.5], np.float32))
_SIZES = ("tensor", np.array([16.0, 4.0, 16.0, 4.0], np.float32))
_functional("adjusted_group_loss", {"group_loss": _SUMS, "group_size": _SIZES, "adjustment": _SUMS})
_rng_call("balanced_subset", "group")
_functional(
    "class_means",
    {"X": ("table", X), "y": ("codes", Y), "sample_weight": ("weights", WEIGHT)},
    optional=("sample_weight",),
)
_functional(
    "contrastive_losses",
    {
        "features": _TABLE,
        "label": _LABEL,
        "cluster": ("code_tensor", ATTRIBUTE),
        "temperature": ("number", 0.1),
    },
)
_functional(
    "cvar_group_weights", {"adjusted_loss": _SUMS, "group_size": _SIZES, "alpha": ("number", 0.5)}
)
_functional("el2n", {"logits": _TABLE, "label": _LABEL})
_functional("find_dispersed", {"X": ("table", X), "y": ("codes", Y)})
_functional(
    "fit_l1_logistic", {"X": _TABLE, "y": _LABEL, "C": ("number", 1.0), "n_classes": ("count", 2)}
)
_functional(
    "fold_neutral_map",
    {
        "weight": ("tensor", X[:2]),
        "bias": ("tensor", X[:2, 0]),
        "scale": ("tensor", X[0]),
        "shift": ("tensor", X[1]),
    },
)
_functional("forgetting_counts", {"correct": ("flags", X > 0)})
_functional(
    "gradient_norms",
    {"inputs": _TABLE, "label": _LABEL},
    fixed={"module": nn.Linear(3, 2)},
    without=("dict", "user_dict", "half", "float64", "whole", "bool", "int", "float"),
)
_functional(
    "group_counts",
    {"group": ("codes", GROUP), "n_groups": ("count", 4), "sample_weight": ("weights", WEIGHT)},
    optional=("sample_weight",),
)
_functional("group_mean_losses", {"sums": _SUMS, "counts": _SIZES})
_functional(
    "group_means",
    {"values": ("values", WEIGHT), "group": ("codes", GROUP), "n_groups": ("count", 4)},
)
_functional(
    "group_sums",
    {
        "values": ("tensor", WEIGHT.astype(np.float32)),
        "group": ("code_tensor", GROUP),
        "n_groups": ("count", 4),
    },
)
_functional(
    "last_layer_gradient_norms",
    {"logits": _TABLE, "label": _LABEL, "embedding": _TABLE},
    tolerance=1e-2,
)
_functional("neutralise", {"X": _TABLE, "scale": ("tensor", X[0]), "shift": ("tensor", X[1])})
_functional("sampling_probabilities", {"group": ("codes", GROUP), "power": ("number", 1.0)})
_functional(
    "score_partitions", {"X": ("table", X), "partitions": ("partitions", np.stack([Y, ATTRIBUTE]))}
)
_functional(
    "select_kept",
    {"score": ("values", WEIGHT), "fraction": ("number", 0.5), "stratum": ("strata", Y)},
    optional=("stratum",),
)
_rng_call("stratified_split", "strata")
CALLS["functional.stratified_split"].fixed["fraction"] = 0.25
_functional(
    "update_group_weights", {"log_q": _SUMS, "adjusted_loss": _SUMS, "step_size": ("number", 0.1)}
)
_functional(
    "wilson_interval",
    {"n_success": ("counts", np.array([3, 5, 0])), "n": ("counts", np.array([4, 5, 0]))},
)

# ------------------------------------------------------------------------ data sets, files, steps

_add(
    "datasets.make_spurious_classification",
    lambda **given: datasets.make_spurious_classification(random_state=0, **given).data,
    {
        "n_samples": ("count", 40),
        "n_classes": ("count", 2),
        "correlation_strength": ("number", 0.75),
    },
    without=("bool",),
)
_add(
    "datasets.make_spurious_images",
    lambda **given: datasets.make_spurious_images(random_state=0, **given).data,
    {"n_samples": ("count", 40), "image_size": ("count", 16), "noise": ("number", 0.5)},
    without=("bool",),
)
_add(
    "datasets.load_spurious_digits",
    lambda **given: datasets.load_spurious_digits(random_state=0, **given).data,
    {"correlation_strength": ("number", 0.75), "image_size": ("count", 16)},
    weight=1,
    without=("bool",),
)


@functools.cache
def _model_file():
    path = os.path.join(tempfile.mkdtemp(), "model")
    persistence.save_model(_head(), path)
    return path


_add(
    "persistence.load_model",
    lambda path: persistence.load_model(_model_file() if path == "good" else path).predict(X),
    {"path": ("path", "good")},
    words=("file",),
)
_add(
    "persistence.save_model",
    lambda estimator: persistence.save_model(estimator, os.path.join(tempfile.mkdtemp(), "model")),
    {"estimator": ("estimator", _head())},
    words=("instance",),
)


def _by_steps(X, y, sample_group):
    steps = pipeline.make_pipeline("passthrough", ERMClassifier(**QUICK))
    return steps.fit(X, y, sample_group=sample_group).predict_proba(X)


_add(
    "pipeline.make_pipeline",
    _by_steps,
    FIT | {"sample_group": ("groups", GROUP)},
    optional=("sample_group",),
)
