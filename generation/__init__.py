"""What generate.py does: images, and ways to look at a sampler. One file a mode.

A mode is a function from a `generation.setup.Setup`, which is opened and checked once, and the
mode's own options to what it prints at the end. Adding one is a function and a row in MODES. The
table is torch-free; functions are imported when used.
"""

from dataclasses import dataclass

from torch_utils.registry import Row

DEFAULT_MODE = "generate"


@dataclass(frozen=True, kw_only=True)
class ModeRow(Row):
    """A registered mode of generate.py; its target is a `generation.setup.Mode`.

    Attributes:
        reads: the options of `generation.command_line.OPTIONS`, by parameter, that it reads.
        needs: those of them that have to be given.
    """

    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


MODES: dict[str, ModeRow] = {
    "generate": ModeRow(
        target="generation.plain:generate_images",
        reads=("grid",),
        summary="an image for every seed",
    ),
}
