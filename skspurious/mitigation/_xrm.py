"""XRM: groups by the cross-mistakes of twin networks, then GroupDRO."""

from numbers import Integral

from skspurious.base import BaseTorchClassifier
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._stages import make_first_stage
from skspurious.mitigation._xrm_twins import TwinGroups, TwinNetworks
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval


@extends(GroupDROClassifier, without=("group_inferrer",))
class XRMClassifier(GroupDROClassifier):
    """XRM [1]_: groups by the mistakes that twin networks make on each other's half, then GroupDRO.

    The samples are shared out at random to two networks, which are trained together. A sample's
    loss is the class-balanced cross-entropy of its own twin; the other one has never been trained
    on it, and at every look flips the sample's label to the class that it predicts, with
    probability ``(p_max - 1/C) C / (C - 1)``. So both are driven to the easy rule that they
    share, and away from what they would have to memorise. In the end a class is split by whether
    the twin that has not seen a sample is right about its true class, and a fresh network
    minimises the loss of the worst group. No group labels are used anywhere.

    .. versionadded:: 0.1

    Parameters
    ----------
    init_epochs : int, default=None
        Epochs of the twins, where `first_stage` is None. None is ``max_epochs``, as many as the
        second stage has.
    first_stage : classifier, default=None
        How the twins are trained. None takes the second stage's parameters for network,
        optimizer, regularisation and batches, without augmentation and schedule; ``set_params``
        then changes both stages. Of an unfitted classifier, such as
        ``ERMClassifier(lr=1e-3, max_epochs=20)``, the shared parameters are taken, except that
        ``module=None`` in it is the network of the second stage. A search knows its parameters as
        ``first_stage__lr`` and so on.
    n_runs : int, default=1
        Pairs of twins, with other halves, weights and draws; the pair with the most flipped
        labels is kept, as in the paper.
    min_group_size : int, default=None
        Fewest training samples of a group; a class with fewer right or wrong ones stays whole. None
        is 1, and 20 for ``module=None``: a head gives a few hard samples all the weight that they
        get.
    shared parameters

    Attributes
    ----------
    sample_group_ : ndarray of shape (n_samples,), int64, or None
        Group of every row of ``X``, those kept aside included, class by class and right before
        wrong. None where groups are given.
    error_mask_ : ndarray of shape (n_samples,), bool, or None
        Whether the twin that has not seen the row is wrong about it.
    flip_counts_ : ndarray of shape (n_runs,), or None
        Labels of every run that differ in the end from the true ones.
    group_inferrer_ : estimator or None
        The fitted twins; ``group_inferrer_.twins_.history_`` tells how they were trained, and has
        the share of flipped labels after each epoch, ``flip_rate``. What inferred the groups
        carried by ``X`` takes their place; None where groups are given.
    shared attributes

    See Also
    --------
    GroupDROClassifier : The second stage alone, with groups that are given or found otherwise.
    skspurious.group_inference.XRMGroups : The first stage on embeddings, in a second or two.
    JTTClassifier : Upweights what one network gets wrong.

    Notes
    -----
    Needs group labels neither in training nor in validation: with validation data the epoch is
    kept whose worst group is best. Validation samples, and new ones in ``infer_groups``, are
    judged by both twins, by the mean of their probabilities. Groups that are given are used in
    place of inferred ones; groups that ``X`` carries count for the score alone. Each pair of twins
    takes two passes forward and back over all samples per epoch.

    It needs a shortcut that is easier than the task. Where there is none, the mistakes are hard
    samples. The paper chooses among random settings of the twins by the most flipped labels; here
    only runs of one setting compete, since higher rates and more epochs flip more labels whether
    or not there is a shortcut.

    Written from the paper's description, without its code. Halves are stratified by class;
    validation samples get the mean of both twins; a sample keeps the weight of its true class when
    its label flips, for else labels that flip to a rare class would draw others after them. In
    batch normalisation the statistics of a batch are those of both halves.

    References
    ----------
    .. [1] M. Pezeshki, D. Bouchacourt, M. Ibrahim, N. Ballas, P. Vincent, D. Lopez-Paz,
       "Discovering Environments with XRM", ICML 2024. arXiv:2309.16748.

    Examples
    --------
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.mitigation import XRMClassifier
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = XRMClassifier(lr=0.1, max_epochs=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target)
    >>> clf.sample_group_.shape
    (500,)
    >>> clf.used_group_labels_
    {'train': False, 'validation': False}
    """

    # The paper draws settings at random. The second stage is that of GroupDRO's own paper; the
    # rates and decay of the twins are those of plain training there, their epochs are ours.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "first_stage": ERMClassifier(lr=1e-3, weight_decay=1e-4, max_epochs=20),
            "lr": 1e-5,
            "weight_decay": 1.0,
            "max_epochs": 300,
            "adjustment": 2.0,
        },
        "celeba": {
            **RESNET50,
            "first_stage": ERMClassifier(lr=1e-4, weight_decay=1e-4, max_epochs=10),
            "lr": 1e-5,
            "weight_decay": 0.1,
            "max_epochs": 50,
            "adjustment": 3.0,
        },
    }

    _parameter_constraints: dict = {
        **GroupDROClassifier._parameter_constraints,
        "init_epochs": [None, Interval(Integral, 1, None, closed="left")],
        "first_stage": [None, BaseTorchClassifier],
        "n_runs": [Interval(Integral, 1, None, closed="left")],
        "min_group_size": [None, Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        module=None,
        *,
        init_epochs=None,
        first_stage=None,
        n_runs=1,
        min_group_size=None,
        **shared,
    ):
        super().__init__(module, **shared)
        self.init_epochs = init_epochs
        self.first_stage = first_stage
        self.n_runs = n_runs
        self.min_group_size = min_group_size

    def _make_group_inferrer(self):
        max_epochs = self.max_epochs if self.init_epochs is None else self.init_epochs
        first = make_first_stage(self, max_epochs)
        shared = {name: getattr(first, name) for name in ERMClassifier().get_params(deep=False)}
        min_group_size = self.min_group_size
        if min_group_size is None:
            min_group_size = 20 if self.module is None else 1
        return TwinGroups(TwinNetworks(**shared, n_runs=self.n_runs), min_group_size)

    def _learned(self, data, objective, sampler):
        inferrer = data.group_inferrer
        twins = getattr(inferrer, "twins_", None)
        return {
            **super()._learned(data, objective, sampler),
            "sample_group_": None if twins is None else inferrer.labels_,
            "error_mask_": None if twins is None else twins.error_mask_,
            "flip_counts_": None if twins is None else twins.flip_counts_,
        }
