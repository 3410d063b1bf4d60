"""The table of published EDM models: names for their addresses, and how each was sampled.

Karras et al. 2022 (EDM), Tables 2 and 3, and the addresses that its code names. No torch here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch_utils.addresses import address_of, file_name, is_url
from torch_utils.errors import nearest, unknown_name

LIMIT = 16 * 2**30  # bytes of a model that is fetched
_BASE = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"
_CHURN = {"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}


@dataclass(frozen=True)
class Published:
    """A model on the network.

    Attributes:
        address: its URL.
        steps: of the published sampler, heun.
        churn: its options beside the number of steps.
    """

    address: str
    steps: int
    churn: Mapping[str, float] = field(default_factory=dict)

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampler with which it was published, as a snapshot's `sampling:` section."""
        return {"name": "heun", "steps": self.steps, **self.churn}

    @property
    def file(self) -> str:
        """The name of its file, without the folder."""
        return self.address.rpartition("/")[2]


def _row(file: str, steps: int, **churn: float) -> Published:
    return Published(f"{_BASE}/{file}.pkl", steps, churn)


PUBLISHED: Mapping[str, Published] = {
    **{
        f"edm:cifar10-32x32-{labels}-{arch}": _row(f"edm-cifar10-32x32-{labels}-{arch}", 18)
        for labels in ("cond", "uncond")
        for arch in ("vp", "ve")
    },
    **{
        f"edm:{data}-64x64-uncond-{arch}": _row(f"edm-{data}-64x64-uncond-{arch}", 40)
        for data in ("ffhq", "afhqv2")
        for arch in ("vp", "ve")
    },
    "edm:imagenet-64x64-cond-adm": _row("edm-imagenet-64x64-cond-adm", 256, **_CHURN),
    # networks of earlier work, which EDM compares its sampler on
    **{
        f"edm:baseline-cifar10-32x32-uncond-{arch}": _row(
            f"baseline/baseline-cifar10-32x32-uncond-{arch}", 18
        )
        for arch in ("vp", "ve")
    },
    "edm:baseline-imagenet-64x64-cond-adm": _row(
        "baseline/baseline-imagenet-64x64-cond-adm", 256, **_CHURN
    ),
}


def looks_like_a_name(text: str, table: Mapping[str, Published] = PUBLISHED) -> bool:
    """Whether a text is written like a name of the table: it begins as they all do, with `edm:`."""
    families = {name.partition(":")[0] for name in table}
    family, mark, _ = text.partition(":")
    return bool(mark) and not is_url(text) and family.casefold() in families


def model_address(
    text: str, table: Mapping[str, Published] = PUBLISHED
) -> tuple[str, str | None] | None:
    """The address behind a name or URL and the SHA-256 that was given with it; None for a path.

    Raises:
        UserError: the name is unknown, or the URL is not one that is fetched.
    """
    if is_url(text):
        return address_of(text)
    if text in table:
        return address_of(table[text].address)
    if looks_like_a_name(text, table):
        raise unknown_name("model", text, table)
    return None


def names_near(text: str, table: Mapping[str, Published] = PUBLISHED) -> list[str]:
    """Names that may be meant by a path that does not exist: alike, or the name of their file."""
    stem = re.split(r"[/\\]", text)[-1].removesuffix(".pkl")
    by_file = [name for name, row in table.items() if row.file == f"{stem}.pkl"]
    return by_file or nearest(text, table)


def row_of_file(name: str, table: Mapping[str, Published] = PUBLISHED) -> Published | None:
    """The row of a file with a published name, or with the name of a copy in the cache."""
    for row in table.values():
        if name in (row.file, file_name(row.address)):
            return row
    return None
