"""Step 4 of PruSC: which weights of a frozen network to keep is learned on the balanced set."""

import numpy as np
import pandas as pd
import torch
from sklearn.utils.class_weight import compute_class_weight

from skspurious._engine._masks import add_masks, one_draw
from skspurious._engine._modules import forward, last_linear
from skspurious._engine._objective import WeightedLoss
from skspurious._engine._samplers import CellBatchSampler
from skspurious._engine._stage import TO_THE_END, Stage
from skspurious.functional._contrastive import contrastive_losses
from skspurious.functional._masks import hard_mask, mask_penalty
from skspurious.utils._warnings import warn

# What the two variants learn masks by. Adam's eps must be small against the gradient of one logit,
# which for the density shrinks with their number.
VARIANTS = {
    "paper": {"gate": "logit", "negatives": "class", "penalty": "density", "eps": 1e-12},
    "code": {"gate": "double_sigmoid", "negatives": "cluster", "penalty": "logit_sum", "eps": 1e-8},
}
_INIT_LOGIT = 1.5  # of every mask
_TEMPERATURE = 0.07  # of the contrastive loss
_MIN_DENSITY = 0.001  # share of each layer's weights that is kept in any case
MASK_BATCH = 64


def attach_masks(module, estimator):
    """Masks on the layers of a network, in place; by the name of the layer."""
    return add_masks(
        module,
        estimator.exclude,
        init_logit=_INIT_LOGIT,
        gate=VARIANTS[estimator.variant]["gate"],
        min_density=_MIN_DENSITY,
    )


def mask_length(estimator):
    """Epochs and steps in which masks are learned; of a linear head the steps decide."""
    is_head = estimator.module is None
    epochs, steps = (0, 200) if is_head else (20, 400)
    given = estimator.mask_epochs, estimator.mask_steps
    return tuple(d if value is None else int(value) for value, d in zip(given, (epochs, steps)))


def mask_stage(estimator, module, masks, train, rows, cluster, n_classes, batch_size, seeds):
    """The stage in which the logits of the masks are trained, and nothing else.

    Parameters
    ----------
    estimator : PruSCNetwork
        Gives the parameters.
    module : nn.Module
        The network with its masks.
    masks : dict of WeightMask
    train : LabelledSamples
    rows : ndarray of int
        Positions of the balanced set.
    cluster : ndarray of int
        Cluster of every sample of ``train``.
    n_classes, batch_size : int
    seeds : sequence of two ints

    Returns
    -------
    stage : Stage
    """
    mask_epochs, mask_steps = mask_length(estimator)
    n_epochs = max(mask_epochs, 1)
    n_batches = -(-len(rows) // batch_size) if mask_epochs > 0 else 0
    sampler = CellBatchSampler(
        rows,
        cluster[rows],
        train.y.numpy()[rows],
        batch_size=batch_size,
        n_batches=max(n_batches, -(-mask_steps // n_epochs)),
        seed=seeds[0],
    )
    variant = VARIANTS[estimator.variant]
    loss = MaskLoss(
        class_weight(sampler.cell_label, n_classes),
        module,
        masks.values(),
        cluster,
        variant=variant,
        sparsity_weight=estimator.sparsity_weight,
        contrastive_weight=estimator.contrastive_weight,
    )
    changes = {
        "max_epochs": n_epochs,
        "batch_size": batch_size,
        "lr": estimator.mask_lr,
        "optimizer": "adam",
        "optimizer_params": {"eps": variant["eps"]},
        "weight_decay": 0.0,
        "lr_schedule": None,
        "max_grad_norm": None,
        "gradient_accumulation": 1,
        "compile": False,
        **TO_THE_END,
    }
    return Stage("masks", loss, sampler, seed=seeds[1], changes=changes)


class MaskLoss(WeightedLoss):
    """Classification, density and contrast between clusters, from one forward pass."""

    def __init__(
        self, class_weight, module, masks, cluster, *, variant, sparsity_weight, contrastive_weight
    ):
        super().__init__(class_weight, by="class")
        self.register_buffer("cluster", torch.as_tensor(cluster))
        self.register_buffer("sums", torch.zeros(2))  # contrastive loss, batches
        self._masks = tuple(masks)  # in tuples: not submodules, which belong to the network
        self._head = (last_linear(module)[1],)
        self.variant = variant
        self.sparsity_weight, self.contrastive_weight = sparsity_weight, contrastive_weight

    def forward(self, module, batch, runtime):
        embedding = []
        hook = self._head[0].register_forward_pre_hook(lambda _, args: embedding.append(args[0]))
        try:
            with one_draw(self._masks), runtime.autocast():
                logits = forward(module, batch["X"])
        finally:
            hook.remove()
        losses = self.sample_losses(logits.float(), batch["y"])
        loss = self.reduce(losses, batch, runtime)
        penalty = mask_penalty([m.logits for m in self._masks], penalty=self.variant["penalty"])
        loss = loss + self.sparsity_weight / runtime.n_processes * penalty
        if self.contrastive_weight > 0:
            contrast = self._contrast(embedding[-1].flatten(1), batch, runtime)
            loss = loss + self.contrastive_weight * contrast
            mean = runtime.all_reduce(contrast.detach().float())  # this process has a share of it
            self.sums += torch.stack([mean, torch.ones_like(mean)])
        return loss, losses, logits

    def _contrast(self, embedding, batch, runtime):
        """Mean over the anchors of all processes; pairs are within a process."""
        cluster = self.cluster[batch["position"]]
        losses, is_anchor = contrastive_losses(
            embedding,
            batch["y"],
            cluster,
            temperature=_TEMPERATURE,
            negatives=self.variant["negatives"],
        )
        if batch["is_real"] is not None:
            losses, is_anchor = losses * batch["is_real"], is_anchor & batch["is_real"]
        return losses.sum() / runtime.all_reduce(is_anchor.sum()).clamp(min=1)

    def log(self):
        kept = sum(hard_mask(mask.logits).sum() for mask in self._masks)
        row = {"density": float(kept) / sum(mask.logits.numel() for mask in self._masks)}
        if self.contrastive_weight > 0:
            total, n = self.sums.tolist()
            row["contrastive_loss"] = total / max(n, 1)
            self.sums.zero_()
        return row


def describe_masks(masks):
    """Masks and densities, as they are learned attributes."""
    kept = {name: mask.kept.cpu().clone() for name, mask in masks.items()}
    n_kept = sum(int(k.sum()) for k in kept.values())
    n_weights = sum(k.numel() for k in kept.values())
    return {
        "masks_": kept,
        "layer_density_": pd.Series(
            {name: float(k.double().mean()) for name, k in kept.items()},
            name="density",
            dtype=np.float64,
        ),
        "density_": n_kept / n_weights,
        "sparsity_": (n_weights - n_kept) / n_weights,
    }


def warn_about_masks(masks, estimator):
    """Warn where masks keep everything, or nothing of a layer."""
    if all(mask.kept.all() for mask in masks.values()):
        warn(
            "sparsity 0: no weight was pruned. A logit moves about mask_lr="
            f"{estimator.mask_lr:g} a step, from {_INIT_LOGIT:g} to 0: use more mask_steps, a "
            "larger mask_lr or a larger sparsity_weight."
        )
    dead = [name for name, mask in masks.items() if not hard_mask(mask.logits).any()]
    if dead:
        warn(
            f"every logit of {len(dead)} layers is negative, among them {dead[:5]}: they keep "
            f"{_MIN_DENSITY:g} of their weights. Use a smaller sparsity_weight or fewer "
            "mask_steps, or exclude them."
        )


def class_weight(y, n_classes):
    """Weights that make classes equally heavy; exactly 1 where they are equally frequent."""
    present = np.unique(y)
    weight = np.ones(n_classes)
    weight[present] = compute_class_weight("balanced", classes=present, y=y)
    return weight
