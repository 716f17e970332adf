"""Errors that have a name of their own."""

__all__ = ["UnreadableFileError"]


class UnreadableFileError(ValueError):
    """A checkpoint or a model file that cannot be used.

    It is damaged, was not written by this package or by a later version of it, or holds another
    run. Nothing of it has been used. Errors of the file system, such as ``FileNotFoundError``,
    arrive as they are.

    .. versionadded:: 0.1

    See Also
    --------
    skspurious.load_model : Reads a model file.
    """
