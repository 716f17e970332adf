"""Errors that have a name of their own."""

__all__ = ["UnreadableFileError"]


class UnreadableFileError(ValueError):
    """A checkpoint or a model file that cannot be used.

    It is damaged, was not written by this package or by a later version of it, or holds another
    run. Nothing of it has been used. Errors of the file system, such as ``FileNotFoundError``,
    arrive as they are.

    .. versionadded:: 0.1

    Parameters
    ----------
    message : str
        Which file, why, and what to do.

    See Also
    --------
    skspurious.load_model : Reads a model file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from skspurious import load_model
    >>> from skspurious.exceptions import UnreadableFileError
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
    >>> size = path.write_bytes(b"something else")
    >>> try:
    ...     load_model(path)
    ... except UnreadableFileError:
    ...     print("not read")
    not read
    """

    def __init__(self, message):
        super().__init__(message)
