"""Callbacks: what else happens while a network trains."""

from skspurious._engine._callbacks import Callback, ProgressBar

__all__ = ["Callback", "ProgressBar"]
