"""The settings of guidance, and the forms in which they are given."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from torch_utils.errors import UserError, unknown_name
from torch_utils.sections import Section

Bound = Annotated[float, Field(ge=0, allow_inf_nan=True)]
Clip = Literal["none", "before", "after", "both"]
Batch = Literal["joint", "split"]


class Guidance(Section):
    """How the model is guided; see diffusion.guidance. A number stands for a scale.

    Attributes:
        scale: s; 1 is no guidance, 0 the unconditional model or the guide alone. May be given as
            `w`, which is scale - 1.
        interval: (low, high): guide where low < sigma <= high; null for no bound.
        clip: key of diffusion.guidance.CLIPS; None for `after` if `clip` is set, else `none`.
        batch: joint, one call on a doubled batch; or split, two calls.
    """

    scale: float
    interval: tuple[Bound, Bound] = (0.0, math.inf)
    clip: Clip | None = None
    batch: Batch = "joint"

    @model_validator(mode="before")
    @classmethod
    def _with_scale(cls, value: Any) -> Any:
        parts = guidance_parts(value)
        for key in parts:
            if key not in cls.model_fields:
                raise unknown_name("key of guidance:", key, [*cls.model_fields, "w"])
        if "scale" not in parts:
            raise ValueError("it has no scale: give scale, or w = scale - 1")
        return parts

    @field_validator("interval", mode="before")
    @classmethod
    def _without_bounds(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            return (0.0, math.inf) if value is None else value
        return [d if v is None else v for v, d in zip(value, (0.0, math.inf), strict=True)]

    @field_validator("interval")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("give two noise levels, the lower one first")
        return value

    @property
    def is_active(self) -> bool:
        """Whether two estimates are combined anywhere."""
        return self.scale != 1


def guidance_parts(value: Any) -> dict[str, Any]:
    """Guidance as a mapping whose scale, if any, is called `scale`.

    Raises:
        UserError: it has both a scale and w, or a w that is not a number.
    """
    if value is None:
        return {}
    parts = dict(value) if isinstance(value, Mapping) else {"scale": value}
    if "w" in parts:
        w = parts.pop("w")
        if "scale" in parts:
            raise UserError("guidance has both scale and w: give one of them, scale = 1 + w")
        if not isinstance(w, (int, float)) or isinstance(w, bool):
            raise UserError(f"guidance w is {w!r}: it must be a number")
        parts["scale"] = 1 + w
    return parts
