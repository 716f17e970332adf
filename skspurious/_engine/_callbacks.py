"""Callbacks: what else happens while a network trains."""

from typing import Any


class Callback:
    """Base of callbacks; every hook does nothing.

    Hooks take ``**kwargs``, so that later versions can pass more.

    Examples
    --------
    >>> from skspurious import ERMClassifier
    >>> from skspurious.callbacks import Callback
    >>> class Count(Callback):
    ...     n_epochs = 0
    ...     def on_epoch_end(self, *, module, row, **kwargs):
    ...         self.n_epochs += 1
    >>> count = Count()
    >>> clf = ERMClassifier(max_epochs=3, callbacks=[count]).fit([[0.0], [1.0]], [0, 1])
    >>> count.n_epochs
    3
    """

    def on_train_begin(self, *, module: Any, max_epochs: int, **kwargs: Any) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, *, module: Any, row: dict, **kwargs: Any) -> None:
        """After each epoch; ``row`` is the epoch's row of ``history_``."""

    def on_train_end(self, *, module: Any, history: list[dict], **kwargs: Any) -> None:
        """After the last epoch."""


class Recorder(Callback):
    """A callback that collects something from epoch to epoch, and keeps it in the checkpoint.

    It is called before the checkpoint of the epoch is written, other callbacks after. A run with
    another ``identity`` is another run.
    """

    def identity(self) -> Any:
        """What tells it from others."""
        raise NotImplementedError

    def state_dict(self) -> dict:
        """Tensors, numbers and containers of them."""
        raise NotImplementedError

    def load_state_dict(self, state: dict) -> None:
        """Go on from there."""
        raise NotImplementedError


class ProgressBar(Callback):
    """One bar over the epochs, with the last losses and accuracies."""

    def on_train_begin(self, *, module: Any, max_epochs: int, **kwargs: Any) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(
            total=max_epochs,
            initial=kwargs.get("epoch", 0),
            unit="epoch",
            disable=not kwargs.get("is_main", True),  # one bar, however many processes
        )

    def on_epoch_end(self, *, module: Any, row: dict, **kwargs: Any) -> None:
        shown = ("train_loss", "train_accuracy", "valid_accuracy", "valid_worst_group_accuracy")
        self.bar.set_postfix({k: f"{row[k]:.3f}" for k in shown if k in row}, refresh=False)
        self.bar.update()

    def on_train_end(self, *, module: Any, history: list[dict], **kwargs: Any) -> None:
        self.bar.close()
