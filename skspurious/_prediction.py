"""What a fitted network makes of any samples: logits, probabilities and embeddings."""

import copy

from skspurious._engine._evaluation import predict_logits
from skspurious._engine._modules import forward, last_linear, layer_output
from skspurious._training import transforms_of
from skspurious.data import TensorSamples


def read_outputs(estimator, module, samples, runtime, apply=None, rows=None):
    """Outputs of a network for samples, in evaluation mode.

    Parameters
    ----------
    estimator : BaseTorchClassifier
        Its parameters say how batches are made.
    module : nn.Module
        The network.
    samples : samples
        The samples, such as ``data.train.samples``.
    runtime : Runtime
        The ``runtime`` that ``_train`` was given.
    apply : callable, default=None
        Called with the network and the inputs of a batch; returns one row for each sample. None
        gives the logits.
    rows : tensor of int, default=None
        Rows of the samples to take; None takes all.

    Returns
    -------
    outputs : tensor of shape (n_samples, ...)
        On the device of the runtime.

    Examples
    --------
    >>> from skspurious.extend import BaseTorchClassifier, read_outputs
    >>> class Sure(BaseTorchClassifier):
    ...     def _train(self, module, data, runtime, seeds):
    ...         trained = super()._train(module, data, runtime, seeds)
    ...         logits = read_outputs(self, module, data.train.samples, runtime)
    ...         trained.learned["sure_"] = logits.softmax(1).amax(1).cpu().numpy()
    ...         return trained
    >>> Sure(max_epochs=2).fit([[0.0], [1.0]], [0, 1]).sure_.shape
    (2,)
    """
    with runtime.fork_rng():
        return predict_logits(
            module,
            samples,
            runtime=runtime,
            rows=rows,
            batch_size=max(estimator.batch_size, 256),
            transform=transforms_of(estimator, samples)[1],
            num_workers=estimator.num_workers,
            apply=forward if apply is None else apply,
        )


def read_logits(estimator, samples, runtime):
    """Logits of the fitted network, as a float64 array of shape (n_samples, n_classes)."""
    module, apply = estimator.module_.to(runtime.device), forward
    if estimator.module is None and runtime.device.type != "mps":
        # A linear head, in float64: a row's logits do not depend on the rows of its batch.
        module, apply = copy.deepcopy(module).double(), _forward_float64
    logits = read_outputs(estimator, module, samples, runtime, apply)
    return logits.cpu().double().numpy()


def read_embedding(estimator, module, samples, runtime, n_classes):
    """What the last linear layer is given: (n_samples, n_features), float32, on the device."""
    head = last_linear(module)[1]
    if head.out_features != n_classes:
        raise ValueError(
            f"the last linear layer of {type(module).__name__} has {head.out_features} "
            f"outputs for {n_classes} classes, so it is not the head. Wrap the network in a "
            "module that registers its head last."
        )
    is_table = isinstance(samples, TensorSamples) and samples.tensor.ndim == 2
    if module is head and is_table and transforms_of(estimator, samples)[1] is None:
        return samples.tensor.to(runtime.device).float()  # X is the embedding, and not copied
    embedding = read_outputs(estimator, module, samples, runtime, layer_output).float()
    if embedding.ndim != 2:
        raise ValueError(
            f"the last linear layer of {type(module).__name__} is given samples of shape "
            f"{tuple(embedding.shape[1:])}; one vector a sample is needed. Pool before it."
        )
    return embedding


def _forward_float64(module, inputs):
    return forward(module, inputs.double())
