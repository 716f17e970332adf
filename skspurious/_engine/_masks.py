"""Masks on the weights of a network, as parametrizations: sampled, fixed, and baked in."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from skspurious._engine._loop import LabelledSamples, Transform, iterate_batches
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
    n_passes: int = 1,
    seed: int = 0,
) -> None:
    """Running statistics anew, as plain means over batches of the given rows.

    Everything else, dropout too, is in evaluation mode. The batches are of one size, as far as
    it divides the rows, and shuffled in every pass.
    """
    norms = [norm for norm in batch_norms(module) if norm.track_running_stats]
    if not norms or len(rows) < 2:
        return
    module.eval()
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]
        norm.train()
    n_whole = len(rows) // batch_size * batch_size or len(rows)
    generator = torch.Generator().manual_seed(seed)
    with runtime.fork_rng():
        for _ in range(n_passes):
            plan = rows[torch.randperm(len(rows), generator=generator)[:n_whole]]
            for batch in iterate_batches(
                data, plan, runtime, batch_size, transform, num_workers, is_shared=False
            ):
                with runtime.autocast():
                    forward(module, batch["X"])
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    module.eval()
