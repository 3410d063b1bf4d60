"""Which values the options and sizes of networks may have: one rule an option, plain data.

Torch-free. What depends on several options at once is checked where a network lays out its levels.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch_utils.errors import UserError


class Rule(NamedTuple):
    """What an option must be, in words and as a test."""

    words: str
    accepts: Callable[[Any], bool]


LARGEST = 2**20  # of any whole number: more than a network can have, and not without end
MAX_BLOCKS = 1000  # a level
MAX_LEVELS = 16


def _is_int(value: Any, least: int, most: int = LARGEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(accepts(item) for item in value)


def _one_of(*names: str) -> Rule:
    return Rule("one of " + ", ".join(names), lambda value: value in names)


POSITIVE_INT = Rule(f"a positive integer up to {LARGEST}", lambda value: _is_int(value, 1))
COUNT = Rule(f"an integer of at least 0 and at most {LARGEST}", lambda value: _is_int(value, 0))
BLOCKS = Rule(f"a positive integer up to {MAX_BLOCKS}", lambda value: _is_int(value, 1, MAX_BLOCKS))
INTS = Rule(
    "a list of positive integers",
    lambda value: _is_list(value, lambda item: _is_int(item, 1)),
)
LEVELS = Rule(
    f"a list of 1 to {MAX_LEVELS} positive integers, one a level",
    lambda value: INTS.accepts(value) and 1 <= len(value) <= MAX_LEVELS,
)
OPTIONAL_INT = Rule("a positive integer or null", lambda value: value is None or _is_int(value, 1))
POSITIVE = Rule("a positive number", lambda value: _is_number(value) and 0 < value < float("inf"))
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
PROBABILITY = Rule("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
# With an odd number of taps, doubling and halving would not give exact factors of two.
TAPS = Rule(
    "a list of an even number of numbers whose sum is positive",
    lambda value: (
        _is_list(value, _is_number) and len(value) % 2 == 0 and 0 < sum(value) < float("inf")
    ),
)

OPTION_RULES: dict[str, Rule] = {
    "model_channels": POSITIVE_INT,
    "channel_mult": LEVELS,
    "channel_mult_emb": POSITIVE_INT,
    "num_blocks": BLOCKS,
    "attn_resolutions": INTS,
    "dropout": PROBABILITY,
    "embedding_type": _one_of("positional", "fourier"),
    "channel_mult_noise": POSITIVE_INT,
    "encoder_type": _one_of("standard", "skip", "residual"),
    "decoder_type": _one_of("standard", "skip"),
    "resample_filter": TAPS,
    "emb_channels": OPTIONAL_INT,
    "num_heads": OPTIONAL_INT,
    "head_dim": OPTIONAL_INT,
    "norm_eps": POSITIVE,
    "modulation": _one_of("add", "scale_shift"),
    "resampler": _one_of("conv", "pool", "block"),
    "down_padding": _one_of("end", "both"),
    "multi_tags": FLAG,
}

SIZE_RULES: dict[str, Rule] = {
    "img_channels": POSITIVE_INT,
    "label_dim": COUNT,
    "augment_dim": COUNT,
    "out_channels": POSITIVE_INT,
}


def check_option(name: str, value: Any) -> None:
    """Check one option against its rule.

    Args:
        name: an option with a rule in `OPTION_RULES`.
        value: what the user gave.

    Raises:
        UserError: the value breaks the rule.
    """
    _check(name, value, OPTION_RULES[name])


def check_sizes(*, img_resolution: int | Sequence[int], **sizes: int) -> tuple[int, int]:
    """Check what every network is told about its images and labels.

    Args:
        img_resolution: one side of square images, or (height, width).
        **sizes: values of the names in `SIZE_RULES`.

    Returns:
        Height and width of the images.

    Raises:
        UserError: a size is not a number of the right kind.
    """
    for name, value in sizes.items():
        _check(name, value, SIZE_RULES[name])
    if _is_int(img_resolution, 1):
        return img_resolution, img_resolution  # type: ignore[return-value]
    if INTS.accepts(img_resolution) and len(img_resolution) == 2:  # type: ignore[arg-type]
        height, width = img_resolution  # type: ignore[misc]
        return height, width
    raise UserError(
        f"img_resolution must be a positive integer or (height, width), not {img_resolution!r}"
    )


def _check(name: str, value: Any, rule: Rule) -> None:
    if not rule.accepts(value):
        raise UserError(f"{name} must be {rule.words}, not {value!r}")
