"""Networks: from the ``module`` argument to the network that is trained."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

from skspurious._engine._runtime import seeded
from skspurious.utils._parameters import nearest_names


def forward(module: nn.Module, inputs: Any) -> Tensor:
    """Logits of a batch: ``module(x)``, or ``module(**x)`` for a dict of tensors."""
    output = module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
    return output.logits if hasattr(output, "logits") else output


def build_module(
    module: nn.Module | FrozenEstimator | str | Callable[..., nn.Module] | None,
    *,
    weights: Any = None,
    module_params: dict | None = None,
    sample_shape: tuple[int, ...] | None,
    n_classes: int | None,
    seed: int,
) -> nn.Module:
    """The network to train; what the user passed is never changed."""
    params = dict(module_params or {})
    if isinstance(module, FrozenEstimator):
        module = module.estimator.module_
    if weights is not None and not isinstance(module, str):
        raise ValueError(
            f"weights={weights!r} goes with the name of a torchvision model; "
            f"module is {type(module).__name__}. Load the weights into the module instead."
        )
    if isinstance(module, nn.Module):
        if params:
            raise ValueError("module_params goes with a class or callable, not with an instance.")
        return copy.deepcopy(module)
    with seeded(seed):
        if module is None:
            if sample_shape is None or n_classes is None:
                raise ValueError(
                    "module=None is a linear head on arrays; pass a module for datasets, "
                    "paths and texts."
                )
            n_features = int(torch.Size(sample_shape).numel())
            head = nn.Linear(n_features, n_classes)
            return head if len(sample_shape) == 1 else nn.Sequential(nn.Flatten(), head)
        if isinstance(module, str):
            return torchvision_model(module, weights, n_classes, params)
        if callable(module):
            built = module(**params)
            if not isinstance(built, nn.Module):
                raise TypeError(
                    f"module={module!r} returned {type(built).__name__}, not an nn.Module."
                )
            return built
    raise TypeError(
        f"module must be None, the name of a torchvision model, an nn.Module, or a class or "
        f"callable that makes one; got {module!r}."
    )


def torchvision_model(
    name: str, weights: Any = None, n_classes: int | None = None, params: dict | None = None
) -> nn.Module:
    """A torchvision model by name, its head resized to the classes."""
    import torchvision

    if name not in torchvision.models.list_models():
        classifiers = torchvision.models.list_models(module=torchvision.models)
        raise ValueError(
            f"module={name!r} is not the name of a torchvision model"
            + nearest_names(name.lower(), classifiers, n=3)
        )
    network = torchvision.models.get_model(name, weights=weights, **(params or {}))
    if n_classes is not None:
        path, last = last_linear(network)
        head = nn.Linear(last.in_features, n_classes, bias=last.bias is not None)
        parent, _, child = path.rpartition(".")
        setattr(network.get_submodule(parent), child, head)
    return network


def weights_transform(name: Any, weights: Any) -> Any:
    """The preprocessing that belongs to torchvision weights, or None."""
    if not isinstance(name, str) or weights is None:
        return None
    import torchvision

    if isinstance(weights, str):
        weights = (
            torchvision.models.get_model_weights(name)[weights]
            if "." not in weights
            else torchvision.models.get_weight(weights)
        )
    return weights.transforms()


def last_linear(module: nn.Module) -> tuple[str, nn.Linear]:
    """Name and layer of the last linear layer, in the order of registration."""
    found = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no nn.Linear layer, so its head cannot be found. "
            "Wrap it in a module that ends in one."
        )
    return found[-1]


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Layers that normalise by the batch in training."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def layer_output(module: nn.Module, inputs: Any, layer: str = "penultimate") -> Tensor:
    """What ``layer`` gives for a batch; "penultimate" is what the last linear layer is given."""
    found: list[Any] = []
    if layer == "penultimate":
        target = last_linear(module)[1]
        hook = target.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    else:
        names = dict(module.named_modules())
        if layer not in names:
            raise ValueError(
                f"layer={layer!r} is not a submodule of {type(module).__name__}. Submodules: "
                f"{[n for n in names if n][:40]}."
            )
        hook = names[layer].register_forward_hook(lambda _, args, output: found.append(output))
    try:
        forward(module, inputs)
    finally:
        hook.remove()
    if not found:
        raise ValueError(f"layer={layer!r} was not called in the forward pass.")
    return features_of(found[-1])


def features_of(output: Any) -> Tensor:
    """The tensor of what a layer or a network gives: of transformers its last hidden state."""
    if isinstance(output, Mapping):
        known = [output[name] for name in ("last_hidden_state", "logits") if name in output]
        output = known[0] if known else next(iter(output.values()))
    return output[0] if isinstance(output, tuple | list) else output


def embed(module: nn.Module, inputs: Any) -> Tensor:
    """What the head of a network is given for a batch; without a head, what the network gives.

    The head is the last linear layer, unless a layer with weights is called after it, as where a
    transformer ends in a normalisation, or the output is a hidden state of transformers.
    """
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    called: list[tuple[nn.Module, Any]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: called.append((layer, args)))
        for layer in module.modules()
        if isinstance(layer, nn.Linear) or next(layer.parameters(recurse=False), None) is not None
    ]
    try:
        output = module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    has_hidden_state = isinstance(output, Mapping) and "logits" not in output
    if not linear or has_hidden_state:
        return features_of(output)
    if all(layer is not linear[-1] for layer, _ in called):
        raise ValueError(
            f"the last linear layer of {type(module).__name__} was not called in the forward "
            "pass, so its head is not known. Name a layer by layer=."
        )
    last, args = called[-1]
    return args[0] if last is linear[-1] else features_of(output)


def pool(features: Tensor, pooling: str | None, inputs: Any = None) -> Tensor:
    """One vector a sample: of tokens (n, tokens, width) and maps (n, channels, height, width).

    "mean" is over the tokens that the attention mask keeps, or over the places; "cls" the first
    token; "auto" is the mean; None lays all numbers side by side.
    """
    if features.ndim < 3 or pooling is None:
        return features.reshape(len(features), -1)
    if features.ndim > 3:
        if pooling == "cls":
            raise ValueError(
                f"pooling='cls' takes the first token, but the layer gives maps of shape "
                f"{tuple(features.shape[1:])}: use 'mean' or None."
            )
        return features.flatten(2).mean(2)
    if pooling == "cls":
        return features[:, 0]
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None or mask.shape != features.shape[:2]:
        return features.mean(1)
    weight = mask.to(features.dtype)[..., None]
    return (features * weight).sum(1) / weight.sum(1).clamp(min=1)


def check_output(module: nn.Module, inputs: Any, n_classes: int) -> None:
    """Raise unless the network maps a few samples to one logit per class.

    It also gives lazy layers their shapes. Evaluation mode: batch statistics stay as they are.
    """
    was_training = module.training
    module.eval()
    with torch.no_grad():
        logits = forward(module, inputs)
    module.train(was_training)
    if not torch.is_tensor(logits) or logits.ndim != 2 or logits.shape[1] != n_classes:
        got = tuple(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise ValueError(
            f"module returns {got} where (n_samples, {n_classes}) is needed: one logit for each "
            f"of the {n_classes} classes in y. Change the width of its last layer, or pass a "
            "class with module_params, or a torchvision name, whose head is resized."
        )
