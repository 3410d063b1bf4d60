"""What generate.py does: images, and ways to look at a sampler. One file a mode.

A mode is a function from a `generation.setup.Setup`, which is opened and checked once, and the
mode's own options to what it prints at the end. Adding one is a function and a row in MODES. The
table is torch-free; functions are imported when used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_utils.registry import Row

DEFAULT_MODE = "generate"


@dataclass(frozen=True, kw_only=True)
class ModeRow(Row):
    """A registered mode of generate.py; its target is a `generation.setup.Mode`.

    Attributes:
        reads: the options of `generation.command_line.OPTIONS`, by parameter, that it reads.
        needs: those of them that have to be given.
        replaces: of those, lists of values that an option of the sampler has one after the other.
        seeds: what --seeds is by default.
    """

    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    replaces: Mapping[str, str] = field(default_factory=dict)
    seeds: str = "0-63"


MODES: dict[str, ModeRow] = {
    "generate": ModeRow(
        target="generation.plain:generate_images",
        reads=("grid", "resume", "animate", "frames", "fps"),
        summary="an image for every seed",
    ),
    "interpolate": ModeRow(
        target="generation.interpolate:interpolate",
        reads=("frames", "grid"),
        seeds="0-3",
        summary="strips of images from each seed to the next one",
    ),
    "inpaint": ModeRow(
        target="generation.inpaint:inpaint",
        reads=("images", "mask", "known_noise", "grid"),
        needs=("images", "mask"),
        summary="the white pixels of a mask made anew",
    ),
    "encode": ModeRow(
        target="generation.inversion:encode",
        reads=("images",),
        needs=("images",),
        summary="the latents of images",
    ),
    "decode": ModeRow(
        target="generation.decode:decode",
        reads=("latents", "grid"),
        needs=("latents",),
        summary="images from the latents of encode",
    ),
    "reconstruct": ModeRow(
        target="generation.inversion:reconstruct",
        reads=("images", "grid"),
        needs=("images",),
        summary="images from the latents of images",
    ),
    "denoise": ModeRow(
        target="generation.strips:denoise",
        reads=("grid", "frames", "animate", "fps"),
        summary="a strip of the sampler's states for every seed",
    ),
    "progressive": ModeRow(
        target="generation.strips:progressive",
        reads=("grid", "frames", "animate", "fps"),
        summary="a strip of its estimates of the clean image for every seed",
    ),
    "scales": ModeRow(
        target="generation.scales:compare_scales",
        reads=("scales", "tag_groups"),
        needs=("scales",),
        replaces={"scales": "guidance"},
        seeds="0",
        summary="one picture of every class at several guidance scales",
    ),
}
