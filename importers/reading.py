"""The options that the shapes of a foreign checkpoint tell, completed by those that users give.

A family's reader is a function (shapes, given) -> Reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusion import SCHEDULES
from importers.naming import Naming, Shapes, Source
from importers.published import SCHEDULE_NAMES
from networks import NETWORKS, check_sizes
from networks.layout import Entry
from torch_utils.errors import UserError, unknown_name
from torch_utils.registry import lookup, split_name

SETTINGS = ("prediction", "schedule")
BOUNDS = ("num_steps", "beta_start", "beta_end", "logsnr_min", "logsnr_max")
PREDICTIONS = ("eps", "x0", "v", "x0_eps")


@dataclass(frozen=True)
class Reading:
    """The result of a reader.

    Attributes:
        network: name of our network.
        naming: the names of the family.
        inferred: options, sizes and settings that the shapes, or the family, fix.
        assumed: options that hold unless the caller gives another value.
        attention: whether each level has attention, finest first.
        missing: keys that the caller should have given, beside those that nobody could infer.
    """

    network: str
    naming: Naming
    inferred: dict[str, Any]
    assumed: dict[str, Any]
    attention: list[bool]
    missing: list[str] = field(default_factory=list)

    def sources(
        self, encoder: Sequence[Entry], decoder: Sequence[Entry], ours: Shapes
    ) -> dict[str, Source]:
        """The source of each of our tensors."""
        parts = self.naming.parts(encoder, decoder, self.inferred["num_blocks"])
        sources = {}
        for name in ours:
            layer, kind = name.rsplit(".", 1)
            part = parts[layer]
            names = tuple(f"{foreign}.{kind}" for foreign in part.names)
            sources[name] = Source(names, part.convert)
        return sources


@dataclass(frozen=True)
class Given:
    """The caller's config; None stands for not given."""

    family: str
    config: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """The value of a key, None if it is not given."""
        return self.config.get(key)

    def heads(self, widths: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
        """num_heads and head_dim of attention layers, whose shapes tell only the product.

        Args:
            widths: (channels, width of all heads together) of each layer.

        Returns:
            Both options, or None if the caller gave neither.

        Raises:
            UserError: what was given does not make up these widths.
        """
        said = {key: self.get(key) for key in ("num_heads", "head_dim")}
        options = NETWORKS["ddpm"].resolve(f"{self.family} checkpoint", said)
        num_heads, head_dim = options["num_heads"], options["head_dim"]
        if num_heads is None and head_dim is None:
            return None
        is_split = all(channels == width for channels, width in widths)
        one = {width for _, width in widths}
        # Heads that do not make up the channels have the same width everywhere.
        if not is_split and len(one) == 1:
            (width,) = one
            num_heads = num_heads or max(width // head_dim, 1)
            head_dim = head_dim or max(width // num_heads, 1)
        for channels, width in widths:
            whole = num_heads * head_dim if num_heads and head_dim else channels
            if whole != width or whole % (num_heads or head_dim):
                raise UserError(
                    f"num_heads {num_heads} and head_dim {head_dim} do not make up the attention"
                    f" of this {self.family} checkpoint, {width} wide over {channels} channels"
                )
        return {"num_heads": num_heads, "head_dim": head_dim}

    def resolve(self, reading: Reading) -> dict[str, Any]:
        """All options, sizes and settings.

        Raises:
            UserError: keys are unknown, missing, or contradict the reading.
        """
        required = ["img_resolution", "schedule", "prediction"]
        known = {*reading.inferred, *reading.assumed, *required, "attn_resolutions"}
        known |= {"num_heads", "head_dim"}
        given = {key: value for key, value in self.config.items() if value is not None}
        for key in given:
            if key not in known:
                raise unknown_name(f"key for a {self.family} checkpoint:", key, known)
        row = NETWORKS[reading.network]
        options = {key: value for key, value in given.items() if key in row.options}
        resolved = row.resolve(f"network {reading.network}", options)
        given |= {key: resolved[key] for key in options}
        missing = [key for key in required if key not in reading.inferred and key not in given]
        schedule, bounds = self._schedule(given)
        missing += bounds
        if missing or reading.missing:
            raise UserError(
                f"the shapes of a {self.family} checkpoint do not tell"
                f" {', '.join([*missing, *reading.missing])}: give the missing keys"
            )
        inferred = reading.inferred | self._attention(reading, given)
        values = reading.assumed | given | inferred | {"schedule": schedule}
        values["img_resolution"] = check_sizes(img_resolution=given["img_resolution"])
        for key, value in inferred.items():
            said = list(given[key]) if isinstance(given.get(key), tuple) else given.get(key)
            if key in given and said != value:
                raise UserError(
                    f"{key} is given as {given[key]!r}, but the tensors of this {self.family}"
                    f" checkpoint say {value!r}"
                )
        if values["prediction"] not in PREDICTIONS:
            raise unknown_name("prediction", str(values["prediction"]), PREDICTIONS)
        if values["out_channels"] not in (values["img_channels"], 2 * values["img_channels"]):
            raise UserError(
                f"this {self.family} checkpoint has {values['out_channels']} output channels for"
                f" {values['img_channels']}: it must have as many or twice as many"
            )
        if values["prediction"] == "x0_eps" and "prediction" not in inferred:
            raise UserError(
                f"prediction is given as 'x0_eps', but this {self.family} checkpoint has"
                f" {values['out_channels']} output channels for {values['img_channels']}"
            )
        return values

    def _schedule(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Our entry of the schedule, and the keys of its bounds that are missing."""
        if "schedule" not in given:
            return {}, []
        said, options = split_name("schedule", given["schedule"])
        name = SCHEDULE_NAMES[self.family].get(said, said)
        row = lookup("schedule", SCHEDULES, name)
        resolved = row.resolve(f"schedule {name}", options)
        bounds = [key for key in BOUNDS if key in row.options and key not in options]
        options = {key: resolved[key] for key in options}
        return {"name": name, **options}, [f"schedule.{key}" for key in bounds]

    def _attention(self, reading: Reading, given: Mapping[str, Any]) -> dict[str, Any]:
        """The levels with attention as resolutions."""
        height, width = check_sizes(img_resolution=given["img_resolution"])
        sides = [max(height, width) >> level for level in range(len(reading.attention))]
        attended = [
            side for side, has in zip(sides, reading.attention, strict=True) if has and side
        ]
        chosen = given.get("attn_resolutions", [])
        # Order does not matter, nor do resolutions that the network does not have.
        if {side for side in chosen if side in sides} == set(attended):
            return {"attn_resolutions": list(chosen)}
        return {"attn_resolutions": attended}


def count(shapes: Shapes, pattern: str) -> int:
    """How many of pattern.format(0), pattern.format(1), ... there are."""
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number


def size(family: str, shapes: Shapes, name: str, axis: int) -> int:
    """One side of a tensor.

    Raises:
        UserError: there is no such tensor, or it has too few axes.
    """
    if name not in shapes:
        raise UserError(f"this {family} checkpoint has no tensor {name}: it is not complete")
    if len(shapes[name]) <= axis:
        raise UserError(f"{name} of this {family} checkpoint has shape {list(shapes[name])}")
    return shapes[name][axis]


def multiples(family: str, widths: Sequence[int], unit: int) -> list[int]:
    """The widths of the levels in units of the first one.

    Raises:
        UserError: one of them is not a multiple.
    """
    if not widths or unit < 1 or any(width % unit for width in widths):
        raise UserError(
            f"the levels of this {family} checkpoint have {list(widths)} channels, which are not"
            f" multiples of {unit}"
        )
    return [width // unit for width in widths]
