"""Sections of configs: strict pydantic models, numbers that YAML left as text, one-line errors."""

from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from torch_utils.errors import UserError, unknown_name
from torch_utils.numbers import number
from torch_utils.registry import Row, entry_with_numbers
from torch_utils.sentences import reason, shown


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


def options_of(table: Mapping[str, Row]) -> BeforeValidator:
    """For a field that is an entry of a table: read numbers of its options by their types."""
    return BeforeValidator(lambda entry: entry_with_numbers(table, entry))


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    return {annotation}.union(*map(_kinds, get_args(annotation)))


_PLAIN = 2**63  # a whole number below it that stands for a text is written out
Origin = Callable[[tuple[str, ...]], str]  # path of keys -> what set it, for messages


def validated(model: type[BaseModel], values: Any, where: str | Origin) -> Any:
    """Build a pydantic model; a value that does not fit gives one clear line.

    Args:
        model: the pydantic class.
        values: the mapping to validate. Numbers that are still text are read where the field is
            not a text.
        where: what the values were read from; or a function that tells it for a path of keys.

    Raises:
        UserError: unknown key (with the nearest known one), missing key or bad value.
    """
    values = mended(model, values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
    first = found[0]
    keys = _path(first, values)
    path = tuple(map(str, keys))
    origin = where if isinstance(where, str) else where(path)
    key = ".".join(path)
    if first["type"] in ("extra_forbidden", "invalid_key"):
        raise _unknown_key(model, path, origin)
    if not path:
        raise UserError(f"{origin} is not a mapping of keys to values")
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        raise UserError(f"{origin}: {key} is missing")
    why = reason([other for other in found if _path(other, values) == keys])
    if origin.startswith(f"{key}="):  # the origin shows the value already
        raise UserError(f"{origin}: {why}")
    if first["type"] == "value_error" and isinstance(first["input"], Mapping):
        raise UserError(f"{origin}: {key}: {why}")  # of several keys together
    raise UserError(f"{origin}: {key} is {shown(_value_at(values, keys))}: {why}")


def is_text(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether the value of a key is a text, or a span: then 2024 and 3e-4 are texts."""
    owner = _class_at(model, path[:-1])
    field = owner.model_fields.get(path[-1]) if owner is not None and path else None
    if field is None:
        return False
    members = _members(field.annotation)
    return str in members and members <= {str, int, NoneType}


def mended(model: type[BaseModel], values: Any) -> Any:
    """Turn numbers of a mapping that are still text into numbers, for a pydantic class.

    The type of a field decides: if it may be a text, a text is meant. Options of named entries have
    the types of their rows, see `options_of`.
    """
    if not isinstance(values, Mapping):
        return values
    fields = model.model_fields
    return {
        key: _mended(_members(fields[key].annotation), value) if key in fields else value
        for key, value in values.items()
    }


def _mended(members: set[Any], value: Any) -> Any:
    if isinstance(value, Mapping):
        sections = [kind for kind in members if _is_section(kind)]
        return mended(sections[0], value) if sections else value
    if isinstance(value, list | tuple):
        items = set().union(*(_members(item) for kind in members for item in get_args(kind)))
        return [_mended(items, item) for item in value]
    if members <= {str, NoneType} and type(value) is int and abs(value) < _PLAIN:
        return str(value)
    return value if str in members else number(value)


def _members(annotation: Any) -> set[Any]:
    """The types that a field may have; a literal counts as a text."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if origin in (Union, UnionType):
        return set().union(*map(_members, get_args(annotation)))
    return {annotation}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _path(error: Any, values: Any) -> tuple[Any, ...]:
    """The keys of a pydantic error, without the types that it tried and the places in lists."""
    path: list[Any] = []
    for part in error["loc"]:
        is_missing = error["type"] == "missing" and len(path) == len(error["loc"]) - 1
        if not isinstance(values, Mapping) or not (part in values or is_missing):
            break
        path.append(part)
        values = values.get(part)
    return tuple(path)


def _value_at(values: Any, path: Sequence[Any]) -> Any:
    for key in path:
        values = values[key]
    return values


def _unknown_key(model: type[BaseModel], path: tuple[str, ...], origin: str) -> UserError:
    """The error for an unknown key; it suggests a key of that name in another section."""
    owner = _class_at(model, path[:-1])
    prefix = "".join(f"{part}." for part in path[:-1])
    elsewhere = [
        f"{section}.{path[-1]}"
        for section, field in model.model_fields.items()
        if _is_section(field.annotation) and path[-1] in field.annotation.model_fields  # type: ignore[union-attr]
    ]
    known = [prefix + key for key in owner.model_fields] if owner else []
    return unknown_name(f"key in {origin}:", ".".join(path), known, elsewhere=elsewhere)


def _class_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    """The config class at a path of keys."""
    current: Any = model
    for key in path:
        field = getattr(current, "model_fields", {}).get(key)
        current = field.annotation if field is not None else None
    return current if _is_section(current) else None
