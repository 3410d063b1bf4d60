"""A sampler is one function and one row: the contract tests cover a new one by its name."""

import itertools
from typing import Any

import pytest

from samplers import SAMPLERS, SamplerRow
from samplers.settings import generation_settings
from tests.manual import sampler_table
from tests.samplers import test_solvers as contract

ROW: dict[str, Any] = {
    "target": "tests.samplers.ralston:ralston",
    "options": {"share": 0.75},
    "summary": "Ralston's method",
    "grid": "rho",
    "order": 2,
    "num_calls": lambda num_steps, options, to_zero: 2 * num_steps - to_zero,
    "least_steps": 1,
    "is_stochastic": lambda options: False,
    "paper": "none",
}


def contract_holds() -> None:
    """Every contract test, on the row that was added."""
    contract.test_the_row_states_the_order_of_the_solver("ralston")
    contract.test_a_point_mass_is_found_exactly("ralston")
    for steps, end in itertools.product((1, 2, 5, 18), ("zero", "sigma_min")):
        contract.test_the_row_states_the_number_of_calls("ralston", steps, end)
    contract.test_the_row_states_the_least_number_of_steps("ralston")
    contract.test_the_callback_sees_every_step_and_the_projection_has_the_last_word("ralston")
    contract.test_labels_choose_the_component("ralston")
    contract.test_every_row_is_complete()


def test_a_row_makes_a_function_a_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "ralston", SamplerRow(**ROW))
    contract_holds()
    settings = generation_settings({"name": "ralston", "steps": 9, "rho": 5, "share": 1})
    assert (settings.grid["rho"], settings.options["share"]) == (5.0, 1.0)
    assert "`ralston`" in sampler_table()


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": 3},
        {"num_calls": lambda num_steps, options, to_zero: 2 * num_steps},
        {"num_calls": lambda num_steps, options, to_zero: 2 * num_steps - 1},
        {"least_steps": 2},
        {"options": {"share": 0.75}, "is_stochastic": lambda options: True, "order": 1},
        {"paper": ""},
    ],
)
def test_a_row_that_says_what_is_not_so_breaks_the_contract(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "ralston", SamplerRow(**{**ROW, **wrong}))
    with pytest.raises(AssertionError):
        contract_holds()
