"""A checksum of the content of a training state, whatever file and format it is in.

The checksums of a zip are 32 bits for each of its members, and say nothing of a member that is
missing or comes from another file. This one is of everything together.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

MAX_LEAVES = 2**22  # a damaged or hostile file can name one part again and again


def checksum(tree: Any) -> str:
    """SHA-256 of the tensors, numbers and texts of a tree, and of where they are in it.

    Args:
        tree: tensors on the CPU and plain values in dicts, lists and tuples.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: the tree has too many leaves, or is nested too deeply.
    """
    digest = hashlib.sha256()
    try:
        for number, (path, leaf) in enumerate(_leaves("", tree)):
            if number == MAX_LEAVES:
                raise ValueError(f"it has more than {MAX_LEAVES:,} parts")
            if isinstance(leaf, Tensor):
                digest.update(f"{path} {leaf.dtype} {list(leaf.shape)}\n".encode())
                digest.update(leaf.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
            else:
                digest.update(f"{path} {leaf!r}\n".encode(errors="surrogatepass"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return digest.hexdigest()


def _leaves(path: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """Place and value of everything that is no container; of these, kind and length."""
    if isinstance(tree, Mapping):
        yield path, f"mapping of {len(tree)}"
        for key, value in tree.items():
            yield from _leaves(f"{path}/{key!r}", value)
    elif isinstance(tree, list | tuple):
        yield path, f"{type(tree).__name__} of {len(tree)}"
        for index, value in enumerate(tree):
            yield from _leaves(f"{path}/{index}", value)
    else:
        yield path, tree
