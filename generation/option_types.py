"""Options of modes that are lists of a kind of their own. No torch here, for `--help`."""

import math
from typing import Any

import click

_MOST_SCALES = 64
_FORM = "a list of guidance scales like 0,1,2, or w=0,0.5,1 for scales 1 + w"


class Scales(click.ParamType):  # type: ignore[type-arg]
    """Guidance scales `0,1,2`, or `w=0,0.5` for scales 1 + w."""

    name = "scales"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Parse the list; scales are finite, and each is given once."""
        if isinstance(value, tuple):
            return value
        form, equals, text = str(value).rpartition("=")
        parts = text.split(",")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if (equals and form not in ("w", "scale")) or not numbers:
            self.fail(f"{value!r} is not {_FORM}")
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r}: scales are finite")
        scales = tuple(1 + number if form == "w" else number for number in numbers)
        if len({f"{scale:g}" for scale in scales}) < len(scales):
            self.fail(f"{value!r}: give each scale once")
        if len(scales) > _MOST_SCALES:
            self.fail(f"{value!r}: give at most {_MOST_SCALES} scales")
        return scales


class TagGroups(click.ParamType):  # type: ignore[type-arg]
    """Two groups of tags, `Male,Female:Smiling,`; a place without a name stands for no tag."""

    name = "tags:tags"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Parse the groups; each names a tag at most once."""
        if isinstance(value, tuple):
            return value
        groups = [tuple(group.split(",")) for group in str(value).split(":")]
        if len(groups) != 2:
            self.fail(f"{value!r} is not two groups of tags like Male,Female:Smiling,Sad")
        for group in groups:
            twice = [tag for tag in group if group.count(tag) > 1]
            if twice:
                self.fail(f"{value!r}: {twice[0] or 'no tag'} is twice in a group")
        return groups[0], groups[1]
