"""Every public estimator, once: what the common suites must know to run on it.

A new method is one :class:`Entry` in ``ENTRIES``. All common suites draw from there, and
``test_common.py`` fails for a public estimator that is missing.
"""

from dataclasses import dataclass, field

import numpy as np
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious import (
    AFRClassifier,
    AutoRetrainer,
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    LfFClassifier,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SELFClassifier,
    SemiSupervisedGroupInferrer,
    SPAREClassifier,
    SpuriousGroupInferrer,
    SpuriousSamplePruner,
    TorchFeatureExtractor,
    XRMClassifier,
)
from skspurious.base import BaseTorchClassifier
from skspurious.datasets import make_spurious_classification
from skspurious.group_inference import KMeansGroups, SpareGroups, ViewJury
from skspurious.pipeline import Pipeline
from skspurious.views import (
    Grayscale,
    ImageStatistics,
    KeepCenter,
    KeepWords,
    LowPass,
    MaskCenter,
    PatchFeatures,
    SelectFields,
    ShufflePatches,
    ShuffleWords,
    TextStatistics,
)

# Of classifiers: a few epochs of steps; and in scikit-learn's checks what a user has by default.
QUICK = {"lr": 0.1, "max_epochs": 3, "batch_size": 32, "random_state": 0}
CHECKED = {"random_state": 0}

WEIGHT_CHECK = "check_sample_weight_equivalence_on_dense_data"


@dataclass(frozen=True)
class Entry:
    """A public estimator and its cheap settings.

    Called with parameters, it makes an instance, as the class does; its own ``quick`` parameters
    count where they are not given.

    Parameters
    ----------
    cls : type
        The estimator.
    args : tuple
        Positional arguments that it cannot do without, such as a network.
    quick : dict
        Parameters of its own that make it quick.
    checked : dict
        Parameters in scikit-learn's checks, which call ``fit(X, y)``: a method that needs groups
        has an inferrer there. All others are the defaults of a classifier, and ``quick`` of others.
    shared : bool
        Whether it takes the shared training parameters.
    needs_groups, uses_groups, finds_groups : bool
        Whether ``fit`` fails without groups; trains by groups that are given; finds its own.
    takes_inferrer : bool
        Whether it has the parameter ``group_inferrer``.
    stages : int
        Runs of the training loop.
    failures : dict
        scikit-learn's checks that it is expected to fail, with the reason.
    own_wording : set of str
        Shared parameters that it explains in words of its own.
    warnings : tuple of str
        Starts of warnings that are right on a few dozen samples, as patterns.
    samples : {"table", "pictures", "texts", "pairs"}
        What it is fitted on. scikit-learn's checks give tables, so of others only those run that
        give no X.
    is_stateless : bool
        Whether ``fit`` learns nothing, so that there are no attributes.
    """

    cls: type
    args: tuple = ()
    quick: dict = field(default_factory=dict)
    checked: dict = field(default_factory=dict)
    shared: bool = True
    needs_groups: bool = False
    uses_groups: bool = True
    finds_groups: bool = False
    takes_inferrer: bool = True
    stages: int = 1
    failures: dict = field(default_factory=dict)
    own_wording: frozenset = frozenset()
    warnings: tuple = ()
    samples: str = "table"
    is_stateless: bool = False

    @property
    def name(self):
        return self.cls.__name__

    @property
    def __name__(self):
        return self.cls.__name__

    @property
    def is_classifier(self):
        return issubclass(self.cls, BaseTorchClassifier)

    def __call__(self, *args, **params):
        return self.cls(*(args or self.args), **{**self.quick, **params})

    def to_check(self):
        """An instance for scikit-learn's checks."""
        return self.cls(*self.args, **{**(CHECKED if self.shared else self.quick), **self.checked})

    def fitted(self, **params):
        """A quick instance, fitted on a small table with a shortcut."""
        X, y, group = SMALL[self.samples]()
        estimator = self(**{**(QUICK if self.shared else {}), **params})
        given = {"sample_group": group} if self.needs_groups else {}
        return estimator.fit(X, y, **given)


def small_table():
    """120 samples of two classes and four groups, the smallest with at least four samples."""
    bunch = make_spurious_classification(120, correlation_strength=0.9, random_state=0)
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


def small_pictures():
    """24 pictures of two classes, bytes of 3 channels."""
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    return rng.integers(0, 256, (24, 3, 9, 11), dtype=np.uint8), y, y


def small_texts():
    """24 texts of two classes; the last word tells the class."""
    y = np.arange(24) % 2
    return [f"Text number {i} is {['bad', 'good'][k]}" for i, k in enumerate(y)], y, y


def small_pairs():
    """24 pairs of texts."""
    texts, y, group = small_texts()
    return [(text, f"pair of {text}") for text in texts], y, group


SMALL = {
    "table": small_table,
    "pictures": small_pictures,
    "texts": small_texts,
    "pairs": small_pairs,
}


def _inferrer():
    return {"group_inferrer": SpuriousGroupInferrer()}


ENTRIES = [
    Entry(ERMClassifier, checked=_inferrer()),
    Entry(
        GroupDROClassifier,
        checked=_inferrer(),
        needs_groups=True,
        failures={
            WEIGHT_CHECK: (
                "groups are sampled, and adjusted, by the number of their samples, as in the "
                "paper; weights act on the losses alone, and the inferrer does not see them"
            )
        },
    ),
    Entry(
        BalancedRetrainer,
        checked=_inferrer(),
        needs_groups=True,
        failures={
            WEIGHT_CHECK: (
                "samples are drawn by the inverse size of their group, a number of samples, as in "
                "the papers; weights act on the losses alone, and the inferrer does not see them"
            )
        },
    ),
    Entry(
        AutoRetrainer,
        quick={"finetune": True},  # else the backbone stays where that is as good
        takes_inferrer=False,
        stages=2,
        own_wording=frozenset({"group_inferrer"}),
    ),
    Entry(
        GEORGEClassifier,
        quick={"init_epochs": 1, "group_method": KMeansGroups(n_clusters=2, n_init=1)},
        takes_inferrer=False,
        stages=2,
        failures={
            WEIGHT_CHECK: (
                "groups are clusters of samples, sampled and adjusted by their number, as in the "
                "paper; weights act on the losses of the second stage alone"
            )
        },
        own_wording=frozenset({"group_inferrer"}),
    ),
    Entry(
        SPAREClassifier,
        quick={"group_method": SpareGroups(n_init=1)},
        takes_inferrer=False,
        stages=2,
        failures={
            WEIGHT_CHECK: (
                "samples are drawn by the inverse size of their cluster, a number of samples, as "
                "in the paper; weights act on the losses of the second stage alone"
            )
        },
        own_wording=frozenset({"group_inferrer"}),
    ),
    Entry(
        JTTClassifier,
        quick={"up_weight": 3},  # 20 times 20 errors are half of a hundred rows
        stages=2,
        warnings=("the error set is",),
    ),
    Entry(
        XRMClassifier,
        takes_inferrer=False,
        stages=2,
        own_wording=frozenset({"group_inferrer"}),
    ),
    Entry(
        LastLayerRetrainer,
        quick={"n_draws": 2},
        checked=_inferrer(),
        needs_groups=True,
        stages=2,
        failures={
            WEIGHT_CHECK: (
                "balanced draws take as many samples of each group as the smallest has, whatever "
                "their weights, and the inferrer does not see them"
            )
        },
    ),
    Entry(
        AFRClassifier,
        quick={"gamma": 2.0},  # whether there are validation groups or not
        stages=2,
        failures={
            WEIGHT_CHECK: (
                "a share of the samples of each class is kept for the last layer, by their number; "
                "two copies fall into different mini-batches, or into different parts"
            )
        },
    ),
    Entry(
        SELFClassifier,
        quick={"head_steps": 50},
        stages=3,
        failures={
            WEIGHT_CHECK: (
                "a number of samples is selected, whatever their weights, which act on the losses "
                "alone; two copies fall into different mini-batches"
            )
        },
    ),
    Entry(
        LfFClassifier,
        failures={
            WEIGHT_CHECK: (
                "two copies of a sample fall into different mini-batches, a weight of 2 stays in "
                "one; when one batch holds all samples they are the same, see test_lff.py"
            )
        },
        warnings=("the network is right on",),
    ),
    Entry(
        NSFClassifier,
        quick={"transform_steps": 10, "head_steps": 60, "nsf_lr": 0.05},
        uses_groups=False,
        stages=2,
        failures={
            WEIGHT_CHECK: (
                "weights and copies agree as far as float32 goes, in which the map is learned: to "
                "1e-7 of a probability, where the check wants less"
            )
        },
        own_wording=frozenset({"monitor"}),
        warnings=("no sample was rescued",),
    ),
    Entry(
        PrunedRetrainer,
        quick={"score_epochs": 3},
        stages=2,
        failures={
            WEIGHT_CHECK: (
                "a share of the samples of each class is pruned, by their number; weights act on "
                "the losses alone, and two copies fall into different mini-batches"
            )
        },
        own_wording=frozenset({"monitor"}),
        warnings=("The data look identifiable",),
    ),
    Entry(
        PruSCNetwork,
        quick={"n_clusters": 2, "mask_epochs": 1, "mask_steps": 20, "mask_lr": 0.1},
        uses_groups=False,
        finds_groups=True,
        stages=3,
        failures={
            WEIGHT_CHECK: (
                "clusters and the balanced set are made of samples, whatever their weights, which "
                "act on the losses alone; two copies fall into different mini-batches"
            )
        },
        own_wording=frozenset({"group_inferrer"}),
        warnings=(
            ".*two such clusters are needed",
            "the balanced set has",
            "sparsity 0|every logit of",
        ),
    ),
    Entry(SpuriousGroupInferrer, shared=False),
    Entry(ViewJury, shared=False),
    Entry(
        SemiSupervisedGroupInferrer,
        quick={"if_unknown": "class"},  # for checks that call fit(X, y)
        shared=False,
        warnings=("SemiSupervisedGroupInferrer has no sample_attribute",),
    ),
    Entry(SpuriousSamplePruner, quick={"score_epochs": 3}, warnings=("The data look",)),
    Entry(TorchFeatureExtractor, (nn.Identity(),), quick={"layer": ""}, shared=False),
    Entry(
        TorchFeatureExtractor,
        (ERMClassifier(**CHECKED),),
        quick={"layer": "penultimate"},
        shared=False,
    ),
    Entry(
        Pipeline,
        ([("scale", StandardScaler()), ("classify", ERMClassifier(**CHECKED))],),
        shared=False,
        failures={
            "check_estimators_overwrite_params": "as in scikit-learn, fitted steps stand in steps",
            "check_dont_overwrite_parameters": "as in scikit-learn, fitted steps stand in steps",
        },
    ),
]

PICTURES = {"shared": False, "samples": "pictures"}
TEXTS = {"shared": False, "samples": "texts"}
VIEWS = [
    Entry(MaskCenter, **PICTURES, is_stateless=True),
    Entry(KeepCenter, **PICTURES, is_stateless=True),
    Entry(ShufflePatches, **PICTURES, is_stateless=True),
    Entry(LowPass, **PICTURES, is_stateless=True),
    Entry(Grayscale, **PICTURES, is_stateless=True),
    Entry(ImageStatistics, **PICTURES),
    Entry(PatchFeatures, **PICTURES, quick={"n_patches": 8}),
    Entry(ShuffleWords, **TEXTS, is_stateless=True),
    Entry(KeepWords, **TEXTS),
    Entry(TextStatistics, **TEXTS, is_stateless=True),
    Entry(SelectFields, (0,), shared=False, samples="pairs", is_stateless=True),
]

CLASSIFIERS = [entry for entry in ENTRIES if entry.is_classifier]
ONE_STAGE = [entry for entry in CLASSIFIERS if entry.stages == 1]
TAKE_INFERRER = [entry for entry in CLASSIFIERS if entry.takes_inferrer]
NEED_GROUPS = [entry for entry in CLASSIFIERS if entry.needs_groups]


def by_name(entries):
    """The entries by the name of the estimator; of two of one class the last."""
    return {entry.name: entry for entry in entries}


def ignored_warnings():
    """What a suite on little data ignores: as marks of pytest."""
    import pytest

    patterns = sorted({pattern for entry in ENTRIES for pattern in entry.warnings})
    return [pytest.mark.filterwarnings(f"ignore:{p}:UserWarning") for p in patterns]
