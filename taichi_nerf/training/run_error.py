"""What is wrong with a folder that a training writes, in one line."""

from taichi_nerf.file_error import FileError


class RunError(FileError):
    """A run folder that cannot be used as asked. The message is one line and names the folder or file."""
