"""The table of published references: names for their addresses, and the files that they become.

The files are statistics of data sets that their authors computed with the detectors named here:
EDM's (arXiv:2206.00364) and EDM2's (arXiv:2312.02696). No torch here.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from torch_utils.addresses import address_of, file_name, is_url, shown
from torch_utils.errors import UserError, nearest, unknown_name

LIMIT = 8 * 2**30  # bytes; references of images are the largest

_INCEPTION = ("inception", "inception-torchscript")  # two forms of one network
_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs"
_EDM2 = "https://nvlabs-fi-cdn.nvidia.com/edm2/dataset-refs"


@dataclass(frozen=True)
class Published:
    """A reference on the network.

    Attributes:
        address: its URL.
        detectors: those whose features it describes.
        image_shape: (channels, height, width) of the images that it was made of.
        num: how many these are; None where the publication does not say it.
    """

    address: str
    detectors: tuple[str, ...]
    image_shape: tuple[int, int, int]
    num: int | None = None


PUBLISHED: Mapping[str, Published] = {
    "edm:cifar10-32x32": Published(f"{_EDM}/cifar10-32x32.npz", _INCEPTION, (3, 32, 32), 50_000),
    "edm:ffhq-64x64": Published(f"{_EDM}/ffhq-64x64.npz", _INCEPTION, (3, 64, 64), 70_000),
    "edm:afhqv2-64x64": Published(f"{_EDM}/afhqv2-64x64.npz", _INCEPTION, (3, 64, 64)),
    "edm:imagenet-64x64": Published(f"{_EDM}/imagenet-64x64.npz", _INCEPTION, (3, 64, 64)),
    # for the ImageNet model of the baseline, whose images were made smaller in another way
    "edm:imagenet-64x64-baseline": Published(
        f"{_EDM}/imagenet-64x64-baseline.npz", _INCEPTION, (3, 64, 64)
    ),
    "edm2:img64": Published(f"{_EDM2}/img64.pkl", (*_INCEPTION, "dinov2"), (3, 64, 64)),
    "edm2:img512": Published(f"{_EDM2}/img512.pkl", (*_INCEPTION, "dinov2"), (3, 512, 512)),
}


def published(
    text: str, table: Mapping[str, Published] = PUBLISHED, *, detector: str | None = None
) -> Published | None:
    """The row of a name or of an address in the table; None for any other text.

    Args:
        text: what the user gave.
        table: the names.
        detector: what the reference will be used with.

    Raises:
        UserError: the text is written like a name, but no such one is known; or the reference is
            of the features of other detectors.
    """
    row = _row(text, table)
    if row is not None and detector is not None and detector not in row.detectors:
        raise UserError(
            f"{text} is of the features of {' and '.join(row.detectors)}, not of {detector!r}: "
            f"give --detector={row.detectors[0]}, or make a reference by `fid.py ref`"
        )
    return row


def _row(text: str, table: Mapping[str, Published]) -> Published | None:
    if text in table:
        return table[text]
    if is_url(text):
        address, _ = address_of(text)
        return next((row for row in table.values() if row.address == address), None)
    families = {name.partition(":")[0] for name in table}
    family, mark, _ = text.partition(":")
    is_like_a_name = bool(mark) and family.casefold() in families
    is_a_path = "/" in text or os.path.exists(text)
    if is_like_a_name or (not is_a_path and nearest(text, table)):
        raise unknown_name("reference", text, table)
    return None


def reference_address(
    text: str, table: Mapping[str, Published] = PUBLISHED
) -> tuple[str, str | None] | None:
    """The address behind a name or URL and the SHA-256 that was given with it; None for a path.

    Raises:
        UserError: the name is unknown, or the URL is not one that is fetched.
    """
    row = published(text, table)
    if is_url(text):
        return address_of(text)
    return None if row is None else address_of(row.address)


def reference_name(text: str) -> str:
    """What a reference is called in results: as it was given, but without what may be a secret."""
    return shown(text) if is_url(text) else text


def reference_file(text: str, table: Mapping[str, Published] = PUBLISHED) -> str:
    """The local file that is meant by `--ref`: a name, a URL, or a path, which stays as it is.

    What a name or a URL stands for is fetched once and kept in the cache; its content is checked
    whenever it is used, against the hash in `URL#sha256=HEX`, or else the first one seen.

    Args:
        text: what the user gave.
        table: the names.

    Raises:
        UserError: the name is unknown; or the file is neither in the cache nor to be had; or it is
            not the expected one.
    """
    found = reference_address(text, table)
    if found is None:
        return text
    from torch_utils.cache_folder import REFERENCES, cache_folder
    from torch_utils.downloads import fetch

    address, sha256 = found
    path = fetch(
        [address],
        file_name(address),
        cache_folder(REFERENCES),
        sha256=sha256,
        limit=LIMIT,
        place_hint=", or give the path of a copy in place of its address",
    )
    return str(path)
