"""What a model is, as plain data: enough to build it, small enough to travel in a snapshot."""

from typing import Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from torch_utils.errors import UserError, unknown_name


class Section(BaseModel):
    """A part of a config: unknown keys are errors, values are never coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 0 or 1."""
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(item, bool) for item in items):
            assert info.field_name is not None  # there is always one of a field's validator
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if kinds & {int, float} and not kinds & {bool, Any}:
                raise ValueError("give a number (YAML takes yes, no, on and off for true or false)")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    return {annotation}.union(*map(_kinds, get_args(annotation)))


class PreconditioningConfig(Section):
    """How the network becomes a denoiser.

    Attributes:
        name: preset of diffusion.preconditioning.
        sigma_data: standard deviation of the data in [-1, 1]; None keeps the preset's.
        sigma_min, sigma_max: the noise levels that the model accepts; None keeps the preset's.
        output, input_scale, conditioning, schedule, quantize: parts that replace the preset's; see
            `diffusion.preconditioning.create`.
    """

    name: str = "edm"
    sigma_data: float | None = Field(default=None, gt=0)
    sigma_min: float | None = Field(default=None, ge=0)
    sigma_max: float | None = Field(default=None, gt=0)
    output: str | None = None
    input_scale: str | None = None
    conditioning: str | None = None
    schedule: str | dict[str, Any] | None = None
    quantize: bool | None = None


class ModelConfig(Section):
    """Everything needed to build a denoiser.

    Attributes:
        network: {name, options...} of networks.create.
        preconditioning: the wrapper around it.
        img_resolution: (height, width).
        img_channels: number of channels.
        label_dim: width of the label vector; 0 for unconditional.
        augment_dim: width of the augmentation label; 0 for none.
    """

    network: dict[str, Any]
    preconditioning: PreconditioningConfig = PreconditioningConfig()
    img_resolution: tuple[int, int]
    img_channels: int = Field(gt=0)
    label_dim: int = Field(default=0, ge=0)
    augment_dim: int = Field(default=0, ge=0)


def validated(model: type[BaseModel], values: Any, where: str) -> Any:
    """Build a pydantic model; what does not fit is one clear line.

    Args:
        model: the pydantic class.
        values: the mapping to validate.
        where: what it was read from, for the message.

    Raises:
        UserError: unknown key (with the nearest known one), missing key or bad value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            owner = _class_at(model, first["loc"][:-1])
            prefix = "".join(f"{part}." for part in first["loc"][:-1])
            known = [prefix + key for key in owner.model_fields] if owner else []
            raise unknown_name(f"key in {where}:", path, known) from None
        given = "" if first["type"] == "missing" else f" is {first['input']!r}"
        raise UserError(f"{where}: {path}{given}: {_reason(first)}") from None


def _reason(error: Any) -> str:
    """Pydantic's message, in one line and without its prefix."""
    return str(error["msg"]).removeprefix("Value error, ").replace("\n", " ")


def _class_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The config class at a path of keys."""
    current: Any = model
    for key in location:
        field = getattr(current, "model_fields", {}).get(key)
        current = field.annotation if field is not None else None
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None
