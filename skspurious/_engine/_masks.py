"""Masks on the weights of a network, as parametrizations: sampled, fixed, and baked in."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from skspurious._engine._batches import LabelledSamples, Transform, iterate_batches
from skspurious._engine._modules import batch_norms, forward
from skspurious._engine._runtime import Runtime
from skspurious.functional._masks import hard_mask, sample_mask

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class WeightMask(nn.Module):
    """Parametrization of a weight: the weight times a binary mask.

    While it is learned, a training forward pass sees a random mask and an evaluation the hard
    one; once fixed, both see the mask ``kept``. Before it is learned it does nothing.

    Parameters
    ----------
    weight : tensor
        The weight to mask.
    init_logit : float
        First value of every mask logit.
    gate : {"logit", "double_sigmoid"}
        What noise is added to.
    temperature : float
        Of the straight-through gradient.
    min_density : float
        Share of the layer's weights that is kept at least.
    """

    kept: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        init_logit: float,
        gate: str,
        temperature: float,
        min_density: float,
    ):
        super().__init__()
        self.logits = nn.Parameter(
            torch.full_like(weight, init_logit, dtype=torch.float32, requires_grad=True)
        )
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))
        self.gate, self.temperature, self.min_density = gate, temperature, min_density
        self.is_learned = False
        self.drawn: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        if not self.is_learned:
            return torch.where(self.kept, weight, 0.0)
        if not self.training:
            return torch.where(self.hard(), weight, 0.0)
        mask = self.sample() if self.drawn is None else self.drawn
        return weight * mask.to(weight.dtype)

    def sample(self) -> Tensor:
        """A random mask."""
        uniform = torch.rand_like(self.logits)
        return sample_mask(self.logits, uniform, gate=self.gate, temperature=self.temperature)

    def hard(self) -> Tensor:
        """The mask without noise."""
        return hard_mask(self.logits, min_density=self.min_density)

    def fix(self) -> None:
        """End learning: from now on the hard mask as it is."""
        self.kept.copy_(self.hard())
        self.is_learned = False
        self.logits.requires_grad_(False)


def maskable_layers(module: nn.Module, exclude: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Linear and convolutional layers by name, without the named submodules and what is in them."""
    names = {name for name, _ in module.named_modules()}
    unknown = [name for name in exclude if name not in names]
    if unknown:
        raise ValueError(
            f"exclude has names that are not submodules of {type(module).__name__}: {unknown}. "
            f"Submodules: {sorted(name for name in names if name)[:40]}."
        )
    found: dict[str, nn.Module] = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _LAYERS)
        and ("weight" in layer._parameters or parametrize.is_parametrized(layer, "weight"))
        and not any(name == out or name.startswith(f"{out}.") for out in exclude)
    }
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no linear or convolutional layer"
            + (f" outside exclude={list(exclude)}" if exclude else "")
            + ", so there is nothing to mask."
        )
    return found


def add_masks(
    module: nn.Module,
    exclude: Sequence[str] = (),
    *,
    init_logit: float = 1.5,
    gate: str = "logit",
    temperature: float = 1.0,
    min_density: float = 0.0,
) -> dict[str, WeightMask]:
    """Mask the layers of a network, in place; the masks by layer name.

    Layers that share a weight share its mask, which stands under the name of the first. A weight
    that something else uses as well, such as an embedding, is copied: the mask is for the layer.
    """
    layers = maskable_layers(module, exclude)
    own = {f"{name}.weight" if name else "weight" for name in layers}
    elsewhere = {
        id(parameter)
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if name not in own
    }
    masks: dict[str, WeightMask] = {}
    shared: dict[int, WeightMask] = {}
    copies: dict[int, nn.Parameter] = {}
    for name, layer in layers.items():
        weight = layer._parameters.get("weight")
        if weight is not None and id(weight) in elsewhere:
            if id(weight) not in copies:
                copies[id(weight)] = nn.Parameter(weight.detach().clone(), weight.requires_grad)
            layer.weight = weight = copies[id(weight)]
        mask = None if weight is None else shared.get(id(weight))
        if mask is None:
            mask = WeightMask(
                cast(Tensor, layer.weight).detach(),
                init_logit=init_logit,
                gate=gate,
                temperature=temperature,
                min_density=min_density,
            )
            masks[name] = mask
            if weight is not None:
                shared[id(weight)] = mask
        parametrize.register_parametrization(layer, "weight", mask)
    return masks


def bake_masks(module: nn.Module) -> None:
    """Put the masked weights in place of their parametrizations: exact zeros, which pickle."""
    for layer in module.modules():
        parts = getattr(layer, "parametrizations", {})
        if "weight" in parts and any(isinstance(part, WeightMask) for part in parts["weight"]):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


@contextlib.contextmanager
def one_draw(masks: Iterable[WeightMask]) -> Iterator[None]:
    """One random mask per weight for a forward pass, however often the weight is read."""
    masks = list(masks)
    try:
        for mask in masks:
            mask.drawn = mask.sample()
        with parametrize.cached():
            yield
    finally:
        for mask in masks:
            mask.drawn = None


@contextlib.contextmanager
def only_masks_are_trained(module: nn.Module, masks: dict[str, WeightMask]) -> Iterator[None]:
    """Learn the logits of the masks in the block, everything else frozen; then fix the masks."""
    logits = {id(mask.logits) for mask in masks.values()}
    frozen = [p for p in module.parameters() if p.requires_grad and id(p) not in logits]
    for parameter in frozen:
        parameter.requires_grad_(False)
    for mask in masks.values():
        mask.is_learned = True
    yield
    for mask in masks.values():
        mask.fix()
    for parameter in frozen:
        parameter.requires_grad_(True)


@torch.no_grad()
def recalibrate_batch_norms(
    module: nn.Module,
    data: LabelledSamples,
    rows: Tensor,
    runtime: Runtime,
    *,
    batch_size: int,
    transform: Transform | None = None,
    num_workers: int = 0,
) -> None:
    """Running statistics anew: mean and variance over all the given rows.

    Layer by layer, in the order in which the forward pass calls them: each layer is given what it
    will be given in evaluation, where the layers before it already normalise by their new
    statistics. So the result is that of one batch of all rows, up to rounding, whatever the size
    and order of the batches; the price is one pass over the rows for each layer, up to that
    layer. A layer that is called several times pools its calls. Everything else is in evaluation
    mode, and momentum, affine parameters and the count of batches stay as they are. Processes
    share the rows and end with the same statistics.

    Parameters
    ----------
    module : nn.Module
        The network; changed in place, and left in evaluation mode.
    data : LabelledSamples
        The samples.
    rows : tensor of int64
        Their rows to use. Fewer than two have no variance: then nothing changes.
    runtime : Runtime
        Device, precision and processes.
    batch_size : int
        Rows in memory at a time.
    transform : callable, optional
        What prediction applies to a batch.
    num_workers : int, default=0
        Processes that load samples.
    """
    norms = [norm for norm in batch_norms(module) if norm.track_running_stats]
    if not norms or len(rows) < 2:
        return
    module.eval()

    def batches(rows: Tensor) -> Iterator[Any]:
        for batch in iterate_batches(
            data, rows, runtime, batch_size, transform, num_workers, is_shared=False
        ):
            yield batch["X"]

    mine = rows[runtime.rank :: runtime.n_processes]
    with runtime.fork_rng():
        for norm, n_calls in _calls(module, norms, batches(rows[:batch_size]), runtime).items():
            inputs = _NormInputs(norm, n_calls)
            inputs.collect(module, batches(mine), runtime)
            inputs.store(runtime)


def _calls(
    module: nn.Module, norms: list[nn.Module], batches: Iterator[Any], runtime: Runtime
) -> dict[nn.Module, int]:
    """How often a forward pass calls each layer, in the order of the first call."""
    calls: dict[nn.Module, int] = {}

    def count(norm: nn.Module, _: Any) -> None:
        calls[norm] = calls.get(norm, 0) + 1

    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        with runtime.autocast():
            forward(module, next(batches))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


class _LastCall(Exception):
    """The layer has been called for the last time: the rest of the network is not needed."""


class _NormInputs:
    """Count, mean and variance of what a batch-norm layer is given, a batch at a time."""

    def __init__(self, norm: nn.Module, n_calls: int):
        self.norm, self.n_calls = norm, n_calls
        self.seen = 0  # calls in this batch
        zeros = torch.zeros(cast(int, norm.num_features), dtype=torch.float64)
        self.parts = [(0, zeros, zeros)]

    def collect(self, module: nn.Module, batches: Iterator[Any], runtime: Runtime) -> None:
        """Run the network on all batches, as far as the layer."""
        hook = self.norm.register_forward_pre_hook(self._take, with_kwargs=True)
        try:
            for X in batches:
                self.seen = 0
                with contextlib.suppress(_LastCall), runtime.autocast():
                    forward(module, X)
        finally:
            hook.remove()

    def _take(self, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        x = (args[0] if args else kwargs["input"]).float()
        axes = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(x, axes, correction=0)
        n = x.numel() // x.shape[1]
        self.parts.append((n, mean.to("cpu", torch.float64), variance.to("cpu", torch.float64)))
        self.seen += 1
        if self.seen == self.n_calls:
            raise _LastCall

    def store(self, runtime: Runtime) -> None:
        """Make the pooled mean and the unbiased variance the layer's running statistics."""

        def total(values: Tensor) -> Tensor:
            values = values.sum(0)
            if runtime.n_processes == 1:
                return values
            return runtime.all_reduce(values.to(runtime.device)).cpu()

        counts, means, variances = zip(*self.parts, strict=True)
        n, mean = torch.tensor(counts, dtype=torch.float64)[:, None], torch.stack(means)
        n_all = total(n)
        center = total(n * mean) / n_all
        squares = total(n * (torch.stack(variances) + (mean - center).square()))
        cast(Tensor, self.norm.running_mean).copy_(center)
        cast(Tensor, self.norm.running_var).copy_(squares / (n_all - 1))
