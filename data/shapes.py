"""Shapes of images, channels, height and width, in the words of messages."""


def remedy(shape: tuple[int, ...], other: tuple[int, ...]) -> str:
    """The options of dataset_tool.py that bring images of two shapes (C, H, W) to one."""
    options = ["--channels=rgb (or gray)"] if shape[0] != other[0] else []
    return " and ".join(options + ["--resolution=WxH"] * (shape[1:] != other[1:]))


def describe_shape(shape: tuple[int, ...]) -> str:
    """Say the shape (channels, height, width) of an image in words."""
    channels, height, width = shape
    return f"{width}x{height} pixels and {channels} channel{'s' if channels > 1 else ''}"
