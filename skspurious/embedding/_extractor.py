"""TorchFeatureExtractor: embeddings, logits, probabilities or hardness, batch by batch."""

import os
import tempfile
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skspurious._engine._batches import LabelledSamples, iterate_batches
from skspurious._engine._config import IN_THE_LOOP
from skspurious._engine._modules import embed, forward, last_linear, layer_output, pool
from skspurious._engine._runtime import Runtime
from skspurious._preparation import read_training_input
from skspurious._training import transforms_of
from skspurious.base import BaseTorchClassifier
from skspurious.data import unpack_groups
from skspurious.data._grouped import wrap_like
from skspurious.embedding._cross_fit import check_cross_fit, cross_fitted_outputs
from skspurious.embedding._epochs import EpochScores, check_has_epochs
from skspurious.embedding._frozen import FrozenNetwork
from skspurious.utils._files import allocate
from skspurious.utils._fitting import _fit_context
from skspurious.utils._parameters import ModuleParametersMixin, refuses_unknown, shallow_copy
from skspurious.utils._random import draw_seed, seed_nested
from skspurious.utils._sklearn_compat import Interval, StrOptions


class _Extractor(
    ModuleParametersMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Outputs as an array; scikit-learn wraps this ``transform`` to obey ``set_output``."""

    def transform(self, X):
        return self._extract(X)

    def fit_transform(self, X, y=None):
        return cross_fitted_outputs(self, X, y, self._fold_seed)


class _GroupCarrier:
    """Puts groups around the output; not a scikit-learn class, so its methods are not wrapped."""

    def transform(self, X):
        """Embeddings, logits or probabilities of the samples.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to embed.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features_out), or GroupedData of it
            GroupedData where ``X`` carries groups. A DataFrame in place of the array after
            ``set_output(transform="pandas")``.
        """
        check_is_fitted(self)
        return wrap_like(super().transform(unpack_groups(X)[0]), X)

    def fit_transform(self, X, y=None):
        """Make the network ready, then give the outputs for the same samples.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to embed.
        y : array-like of shape (n_samples,), default=None
            Class labels; an unfitted classifier needs them.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features_out), or GroupedData of it
            With `cross_fit` out of fold.
        """
        self.fit(X, y)
        if self.cross_fit is None:
            return self.transform(X)
        return wrap_like(super().fit_transform(unpack_groups(X)[0], y), X)


class TorchFeatureExtractor(_GroupCarrier, _Extractor):
    """Turns samples into embeddings: what a layer of a network makes of them.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    module : str, nn.Module, classifier or FrozenEstimator
        A str names a torchvision model; an instance is copied; a classifier of this package is
        cloned and fitted in ``fit`` (as the first stage of SPARE and GEORGE is); a fitted
        classifier in a ``sklearn.frozen.FrozenEstimator`` is used as it is.
    weights : str or torchvision weights, default=None
        Pretrained weights of a torchvision model, such as "DEFAULT".
    layer : str, default="penultimate"
        "penultimate" takes the input of the head, the last linear layer, and of a network without
        a head its output; any other name is that of a submodule of the network, whose output is
        taken.
    pooling : {"auto", "mean", "cls"} or None, default="auto"
        How one vector is made of outputs with a vector for every token (n_samples, n_tokens,
        n_features) or place (n_samples, n_channels, height, width). "mean" is over the places, or
        over the tokens that the ``attention_mask`` of the batch keeps; "cls" is the first token;
        "auto" is "mean"; None lays all numbers side by side.
    output : {"embedding", "logits", "proba", "hardness", "hardness_residual"}, default="embedding"
        "embedding" is what ``layer`` gives; the others ignore ``layer``. "logits" is the output of
        the network and "proba" its softmax. "hardness" is one number for each sample, for
        networks with two classes: the input x of the last linear layer along the direction that
        decides, ``x . (w_1 - w_0) / ||w_1 - w_0||``, which is the difference of the logits up to
        scale and offset (GEORGE's loss component [1]_). "hardness_residual" is the hardness
        followed by the rest of x, in all its dimensions, which
        ``KMeansGroups(n_components=2, n_unreduced=1)`` can reduce.
    dtype : {"float32", "float16"}, default="float32"
        Type of the result; half precision takes half the memory.
    memmap_dir : path, default=None
        Folder in which the result is written as a ``.npy`` file; ``transform`` then returns a
        memory map of it. Each call writes a new file; a disk without room for it is an
        ``OSError``.
    batch_size : int, default=128
        Samples per forward pass.
    eval_transform : callable, default=None
        Acts on a whole batch. None takes the preprocessing of ``weights``, or the classifier's
        own transform.
    collate_fn : callable, default=None
        Makes a batch from a list of samples, or a tokenizer of transformers; texts need one. None
        takes the classifier's own.
    image_size : int or tuple of two ints, default=None
        Height and width that pictures are resized to. None takes the classifier's own.
    device : str or torch.device, default="auto"
        "auto" is CUDA, then MPS, then the CPU.
    precision : {"float32", "bf16", "fp16"}, default="float32"
        Precision of the forward pass.
    num_workers : int, default=0
        Processes that load samples; arrays and tensors need none.
    epoch_selector : group inferrer or callable, default=None
        Which epoch's network an unfitted classifier keeps. None leaves it to the classifier,
        which keeps the last without validation data. A ``SpuriousGroupInferrer`` clusters the
        outputs of each epoch, and the epoch with the highest silhouette is kept (mean over the
        classes, in which a class that stays whole counts 0). A callable
        ``(extractor, X, y) -> float`` is called after each epoch, and the epoch with the highest
        value is kept; of equal ones the first.
    cross_fit : int, default=None
        Number of folds, stratified by class, for an unfitted classifier: ``fit_transform`` then
        gives each sample the output ("logits" or "proba") of a network that was trained on the
        other folds, and ``transform`` that of one trained on all samples.
    random_state : int, RandomState instance or None, default=None
        Seed of a network without weights; with `cross_fit` of the folds, and of classifiers
        without a ``random_state``.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier, or the network behind a classifier's interface.
    module_ : nn.Module
        The network, in evaluation mode.
    n_features_in_ : int
        Number of features of a table, or of channels of images.
    epoch_scores_ : ndarray of shape (n_epochs,) or None
        The score of each epoch by `epoch_selector`; ``estimator_.best_epoch_`` is the chosen one.

    See Also
    --------
    SpuriousGroupInferrer : Clusters embeddings or probabilities into groups.

    Notes
    -----
    One forward pass over the data, without gradients, in evaluation mode. Groups that ``X``
    carries (``GroupedData``) go on to the next step, but never into the network.

    With `cross_fit`, ``fit_transform(X, y)`` is not ``fit(X, y).transform(X)``, as with
    scikit-learn's ``TargetEncoder``: a network has fitted its own rows, and would tell an
    inferrer the label and not what it sees. That is so for training rows that ``transform`` meets
    again. It takes about `cross_fit` times as long as one training; the networks of the folds are
    not kept.

    For more than two classes hardness is not defined; the margin of the logits takes its place,
    ``TorchFeatureExtractor(output="logits")`` before a ``SpuriousGroupInferrer`` with
    ``KMeansGroups(reduction="margin")``.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré, "No Subclass Left Behind:
       Fine-Grained Robustness in Coarse-Grained Classification Problems", NeurIPS 2020.
       arXiv:2011.12945.

    Examples
    --------
    >>> from skspurious import ERMClassifier, TorchFeatureExtractor
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(200, random_state=0)
    >>> early = ERMClassifier(max_epochs=1, random_state=0)
    >>> extractor = TorchFeatureExtractor(early, output="proba")
    >>> extractor.fit_transform(train.data, train.target).shape
    (200, 2)
    """

    _parameter_constraints: dict = {
        "module": [str, nn.Module, BaseEstimator],
        "weights": [None, str, object],
        "layer": [str],
        "pooling": [None, StrOptions({"auto", "mean", "cls"})],
        "output": [StrOptions({"embedding", "logits", "proba", "hardness", "hardness_residual"})],
        "dtype": [StrOptions({"float32", "float16"})],
        "memmap_dir": [None, str, os.PathLike],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "eval_transform": [None, callable],
        "collate_fn": [None, callable],
        "image_size": [None, Interval(Integral, 1, None, closed="left"), tuple, list],
        "device": [str, torch.device],
        "precision": [StrOptions({"float32", "bf16", "fp16"})],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "epoch_selector": [None, BaseEstimator, callable],
        "cross_fit": [None, Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    @refuses_unknown
    def __init__(
        self,
        module,
        *,
        weights=None,
        layer="penultimate",
        pooling="auto",
        output="embedding",
        dtype="float32",
        memmap_dir=None,
        batch_size=128,
        eval_transform=None,
        collate_fn=None,
        image_size=None,
        device="auto",
        precision="float32",
        num_workers=0,
        epoch_selector=None,
        cross_fit=None,
        random_state=None,
    ):
        self.module = module
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.output = output
        self.dtype = dtype
        self.memmap_dir = memmap_dir
        self.batch_size = batch_size
        self.eval_transform = eval_transform
        self.collate_fn = collate_fn
        self.image_size = image_size
        self.device = device
        self.precision = precision
        self.num_workers = num_workers
        self.epoch_selector = epoch_selector
        self.cross_fit = cross_fit
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Make the network ready; only an unfitted classifier is trained.

        Parameters
        ----------
        X : array, DataFrame, tensor, list of paths or texts, map-style dataset, or GroupedData
            Samples of the kind that will be transformed; an unfitted classifier is trained on them.
        y : array-like of shape (n_samples,), default=None
            Class labels; an unfitted classifier needs them.

        Returns
        -------
        self : object

        Raises
        ------
        TypeError
            If ``module`` holds no torch network, or ``epoch_selector`` is an estimator that
            finds no clusters.
        ValueError
            If ``epoch_selector`` has no epochs to choose from, its score is not a finite number,
            or ``cross_fit`` does not go with the other parameters.
        """
        X = unpack_groups(X)[0]
        is_frozen = isinstance(self.module, FrozenEstimator)
        source = self.module.estimator if is_frozen else self.module
        if isinstance(source, BaseEstimator) and not isinstance(source, BaseTorchClassifier):
            raise TypeError(
                f"module is a {type(source).__name__}, which holds no torch network. Pass "
                "a torchvision name, an nn.Module, or a classifier of this package."
            )
        is_trained = isinstance(source, BaseTorchClassifier) and not is_frozen
        if self.cross_fit is not None:
            check_cross_fit(self, is_trained)
            self._fold_seed = draw_seed(self.random_state)
        self.epoch_scores_ = None
        if self.epoch_selector is not None:
            check_has_epochs(source, is_trained)
        if is_frozen:
            check_is_fitted(source)
            self.estimator_ = source
            self._reader()._samples(X)  # raises where it does not fit
        elif isinstance(source, BaseTorchClassifier):
            self.estimator_ = clone(source)
            if self.cross_fit is not None:
                seed_nested(self.estimator_, self._fold_seed)
            if self.epoch_selector is None:
                self.estimator_.fit(X, y)
            else:
                self._fit_epochs(X, y)
        else:
            self.estimator_ = FrozenNetwork(
                self.module,
                weights=self.weights,
                eval_transform=self.eval_transform,
                collate_fn=self.collate_fn,
                image_size=self.image_size,
                random_state=self.random_state,
            ).fit(X)
        return self._adopt(self.estimator_.module_, X)

    def _adopt(self, module, X):
        """Make ``module`` the network that ``transform`` uses."""
        self.estimator_.module_ = module
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        self._n_features_out = self._extract(X, is_probe=True).shape[1]
        return self

    @property
    def module_(self):
        """The network, in evaluation mode."""
        return self.estimator_.module_

    def _fit_epochs(self, X, y):
        """Train the classifier, and keep the network of the epoch with the highest score."""
        own = {k: getattr(self.estimator_, k) for k in ("callbacks", "max_epochs")}
        epochs = IN_THE_LOOP["max_epochs"] if own["max_epochs"] == "auto" else own["max_epochs"]
        scores = EpochScores(self, X, y)
        # What the classifier learns at the end of its fit, and a score after an epoch asks for.
        _, _, self.estimator_._description = read_training_input(self.estimator_, X, y)
        callbacks = [*(own["callbacks"] or []), scores]
        self.estimator_.set_params(callbacks=callbacks, max_epochs=epochs).fit(X, y)
        self.estimator_.set_params(**own)
        self.estimator_.module_.load_state_dict(scores.best_weights)
        self.estimator_.best_epoch_ = int(np.argmax(scores.values)) + 1
        self.epoch_scores_ = np.array(scores.values)

    def _reader(self):
        """What reads X: the classifier, with the transforms that are given here."""
        source = self.estimator_
        names = ("eval_transform", "collate_fn", "image_size")
        given = {name: getattr(self, name) for name in names}
        own = {k: v for k, v in given.items() if v is not None and v is not getattr(source, k)}
        return shallow_copy(source).set_params(**own) if own else source

    def _extract(self, X, is_probe=False):
        source = self._reader()
        samples = source._samples(X)
        n_rows = 1 if is_probe else len(samples)
        runtime = Runtime(self.device, self.precision)
        module = self.module_.to(runtime.device).eval()
        transform = transforms_of(source, samples)[1]
        labelled = LabelledSamples(samples, torch.zeros(len(samples), dtype=torch.int64))
        batches = iterate_batches(
            labelled,
            torch.arange(n_rows),
            runtime,
            self.batch_size,
            transform,
            self.num_workers,
            is_shared=False,
        )
        result, start = None, 0
        with runtime.fork_rng(), torch.inference_mode():
            for batch in batches:
                with runtime.autocast():
                    Z = self._output(module, batch["X"])
                Z = Z.float().to(getattr(torch, self.dtype)).cpu().numpy()
                if result is None:
                    result = self._allocate((n_rows, Z.shape[1]), is_probe)
                if Z.shape[1] != result.shape[1]:
                    raise ValueError(
                        f"samples give {result.shape[1]} numbers and {Z.shape[1]} numbers, as "
                        "texts of different length do with pooling=None: use 'mean' or 'cls'."
                    )
                result[start : start + len(Z)] = Z
                start += len(Z)
        return result

    def _output(self, module, inputs):
        if self.output == "embedding":
            is_default = self.layer == "penultimate"
            Z = embed(module, inputs) if is_default else layer_output(module, inputs, self.layer)
            return pool(Z, self.pooling, inputs)
        if self.output in ("hardness", "hardness_residual"):
            x = layer_output(module, inputs, "penultimate").float().flatten(1)
            direction = _hardness_direction(module)
            hardness = (x * direction).sum(1, keepdim=True)
            if self.output == "hardness":
                return hardness
            return torch.cat([hardness, x - hardness * direction], dim=1)
        logits = forward(module, inputs)
        return logits if self.output == "logits" else logits.float().softmax(1)

    def _allocate(self, shape, is_probe):
        if self.memmap_dir is None or is_probe:
            return np.empty(shape, dtype=self.dtype)
        Path(self.memmap_dir).mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=self.memmap_dir, suffix=".npy")
        os.close(handle)
        result = np.lib.format.open_memmap(path, mode="w+", dtype=self.dtype, shape=shape)
        allocate(path, os.path.getsize(path))  # or raise, where the disk has no room
        return result

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = isinstance(self.module, BaseTorchClassifier)
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _hardness_direction(module):
    """Unit vector from the weights of class 0 to those of class 1."""
    weight = last_linear(module)[1].weight.float()
    if len(weight) != 2:
        raise ValueError(
            f"output='hardness' is for two classes, the last linear layer has {len(weight)} "
            "outputs: use output='logits' and KMeansGroups(reduction='margin')."
        )
    return nn.functional.normalize(weight[1] - weight[0], dim=0)
