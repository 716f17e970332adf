"""The map of NSF and the head behind it, as the last layer of a network."""

import torch
from torch import nn

from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious.functional._elimination import EPS, fold_neutral_map, neutralise


def put_folded(module, head, scale, shift):
    """The network with the folded layer as its last one."""
    weight, bias = (part.cpu().double().numpy() for part in head)
    folded = fold_neutral_map(weight, bias, scale, shift)
    old = last_linear(module)[1].weight
    layer = _make_linear(*folded).to(old.device, old.dtype)
    if any(not p.isfinite().all() for p in layer.parameters()):
        raise ValueError(
            "the head of NSF is NaN or infinite after its steps. Lower nsf_lr, or standardise "
            "the features."
        )
    return replace_last_linear(module, layer).eval()


class MappedLinear(nn.Module):
    """The map and the head behind it, as one trainable layer."""

    def __init__(self, scale, shift, weight, bias):
        super().__init__()
        self.scale = nn.Parameter(torch.as_tensor(scale, dtype=torch.float32))
        self.shift = nn.Parameter(torch.as_tensor(shift, dtype=torch.float32))
        self.linear = _make_linear(weight, bias)

    def forward(self, features):
        return self.linear(neutralise(features, self.scale, self.shift))


class AlignmentLoss(Objective):
    """Cross-entropy plus the loss of the map, whose centers stay where they are."""

    def __init__(self, centers, reg_weight, alignment_weight):
        super().__init__()
        self.register_buffer("centers", torch.as_tensor(centers, dtype=torch.float32))
        self.reg_weight, self.alignment_weight = reg_weight, alignment_weight

    def forward(self, module, batch, runtime):
        layer = next(m for m in module.modules() if isinstance(m, MappedLinear))
        mapped = []
        hook = layer.linear.register_forward_pre_hook(lambda _, args: mapped.append(args[0]))
        try:
            loss, losses, logits = super().forward(module, batch, runtime)
        finally:
            hook.remove()
        residual = mapped[-1].float() - self.centers[batch["y"]] + EPS
        distance = torch.linalg.vector_norm(residual, dim=1)
        penalty = self.reg_weight * layer.scale.mean() / runtime.n_processes
        aligned = self.reduce(distance, batch, runtime) + penalty
        return loss + self.alignment_weight * aligned, losses, logits


def _make_linear(weight, bias):
    """A linear layer of given weights, in float32; no random number is drawn."""
    weight, bias = torch.as_tensor(weight), torch.as_tensor(bias)
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def replace_last_linear(module, layer):
    """The network with another layer in the place of its last linear one, or of its fine-tuned."""
    path = last_linear(module)[0]
    tuned = [name for name, m in module.named_modules() if isinstance(m, MappedLinear)]
    path = tuned[0] if tuned else path
    if path == "":
        return layer
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
    return module


def rows_of(stage, losses, lr):
    """Rows of the history: the loss before every step."""
    values = losses.cpu().tolist()
    return [
        {"stage": stage, "epoch": step + 1, "lr": lr, "train_loss": loss}
        for step, loss in enumerate(values)
    ]
