"""Config errors are in our words, whatever is wrong: a walk over wrong values of every field."""

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from models.config import ModelConfig
from torch_utils.errors import UserError
from torch_utils.sections import validated
from torch_utils.sentences import SENTENCES, shown
from training.config import TrainingConfig

WRONG: list[Any] = [
    *(None, True, 0, -1, 2, 1.5, 10**5000, float("inf"), float("-inf"), float("nan"), -1e9),
    *("", "many", "a/b", "1e3", "9" * 5000, "x\ny", b"x", datetime.date(2024, 1, 1)),
    *([], [1], [1, 2, 3], ["x", "y"], [None], [[1]], {}, {"a": 1}, {1: 2}, {"name": 3}),
]
REQUIRED = {"network": {"name": "ddpmpp"}, "img_resolution": [4, 4], "img_channels": 1}


def fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all keys of a config, sections too."""
    for key, field in model.model_fields.items():
        yield (*path, key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, (*path, key))


CASES = [(model, path) for model in (TrainingConfig, ModelConfig) for path in fields(model)]


@pytest.mark.parametrize(
    ("model", "path"), CASES, ids=lambda value: ".".join(value) if isinstance(value, tuple) else ""
)
def test_every_wrong_value_is_one_line_in_our_words(
    model: type[BaseModel], path: tuple[str, ...]
) -> None:
    refused = 0
    for wrong in WRONG:
        tree: Any = wrong
        for key in reversed(path):
            tree = {key: tree}
        tree = {**(REQUIRED if model is ModelConfig else {}), **tree}
        try:
            validated(model, tree, "test")
        except UserError as error:
            message = str(error)
        else:
            continue
        refused += 1
        assert message.startswith(("test: ", "unknown key in test: ")), message
        assert "\n" not in message
        assert all(key in message for key in path)
        assert len(message) < 400, message
        for foreign in ("Input should", "Value error", "valid ", "str]", ",any]", "Exceeds"):
            assert foreign not in message
    assert refused


def test_there_is_no_sentence_for_what_cannot_happen() -> None:
    """Every type of error in the table is one that these values cause."""
    found: set[str] = {"missing"}
    for model, path in CASES:
        for wrong in WRONG:
            tree: Any = wrong
            for key in reversed(path):
                tree = {key: tree}
            try:
                model.model_validate({**(REQUIRED if model is ModelConfig else {}), **tree})
            except ValidationError as error:
                found |= {part["type"] for part in error.errors()}
    assert found - {"extra_forbidden", "invalid_key"} == SENTENCES.keys()


def test_what_is_no_mapping_or_lacks_a_key_is_refused() -> None:
    with pytest.raises(UserError, match=r"^test is not a mapping of keys to values$"):
        validated(ModelConfig, [1], "test")
    with pytest.raises(UserError, match=r"^test: img_channels is missing$"):
        validated(ModelConfig, {"network": {}, "img_resolution": [4, 4]}, "test")
    with pytest.raises(UserError, match=r"^unknown key in test: '1'"):
        validated(TrainingConfig, {1: 2}, "test")


def test_a_value_is_shown_as_it_was_written_and_not_at_length() -> None:
    assert [shown(value) for value in (None, True, 3, "a")] == ["null", "true", "3", "'a'"]
    assert shown(10**5000) == "a number of 5,001 digits"
    assert len(shown("x" * 1000)) == 80
    assert shown([10**5000]) == "a list of very large numbers"
