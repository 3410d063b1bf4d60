"""One road for options: every table's rows say what an option may be, and its public way obeys."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest

import losses
import networks
from diffusion import GRIDS, SCHEDULES, outputs, preconditioning, schedules
from diffusion.grids import SPACINGS
from diffusion.guidance import CLIPS
from diffusion.preconditioning import PRESETS
from diffusion.steps import VARIANCES
from losses import COUNTED_GRIDS, NOISE_LEVELS, TERMS, WEIGHTS
from metrics import detectors
from metrics.detectors import DETECTORS
from networks import NETWORKS
from samplers import SAMPLERS
from samplers.guidance_settings import Clip
from samplers.settings import flat_with_numbers, generation_settings
from samplers.solvers.derivatives import FIRST
from samplers.solvers.taylor_steps import SCHEMES
from tests.networks.small import SMALL
from torch_utils.errors import UserError
from torch_utils.registry import (
    POSITIVE,
    Row,
    entry_with_numbers,
    resolve_entry,
)

TABLES: dict[str, Mapping[str, Row]] = {
    "schedule": SCHEDULES,
    "grid": GRIDS,
    "counted grid": COUNTED_GRIDS,
    "noise level": NOISE_LEVELS,
    "weight": WEIGHTS,
    "loss term": TERMS,
    "sampler": SAMPLERS,
    "network": NETWORKS,
    "detector": DETECTORS,
    "preconditioning": PRESETS,
}
ROWS = [(kind, name) for kind, table in TABLES.items() for name in table]


def _term(**options: Any) -> Any:
    return losses.create(terms=[{"name": "consistency", **options}])


# table, row, the public way of the table with one option given
WAYS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "schedule": (SCHEDULES, "edm", lambda **o: schedules.create({"name": "edm", **o})),
    "grid": (GRIDS, "rho", lambda **o: generation_settings({"name": "heun", **o})),
    "counted grid": (
        COUNTED_GRIDS,
        "rho",
        lambda **o: losses.create(terms=[{"name": "sequence_aware", "grid": {"name": "rho", **o}}]),
    ),
    "noise level": (
        NOISE_LEVELS,
        "lognormal",
        lambda **o: losses.create(noise_level={"name": "lognormal", **o}),
    ),
    "weight": (WEIGHTS, "edm", lambda **o: losses.create(weight={"name": "edm", **o})),
    "loss term": (TERMS, "consistency", _term),
    "sampler": (SAMPLERS, "heun", lambda **o: generation_settings({"name": "heun", **o})),
    "network": (
        NETWORKS,
        "adm",
        lambda **o: networks.create("adm", img_resolution=8, img_channels=1, **SMALL, **o),
    ),
    "detector": (DETECTORS, "pixels", lambda **o: detectors.load("pixels", **o)),
    "preconditioning": (PRESETS, "edm", lambda **o: preconditioning.create("edm", **o)),
}


@pytest.mark.parametrize("kind", WAYS)
def test_a_bound_in_a_row_of_any_table_is_enforced(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WAYS.keys() == TABLES.keys()
    table, name, way = WAYS[kind]
    row = table[name]

    def bounded(**bound: Any) -> Row:
        return replace(row, options={**row.options, "new": 5.0}, **bound)

    for bound, wrong, message in [
        ({"ranges": {**row.ranges, "new": (4, 6)}}, 7, "new is 7: it must be from 4 to 6"),
        ({"ranges": {**row.ranges, "new": (4, math.inf)}}, "3e0", "new is 3: it must be at least"),
        (
            {"rules": {**row.rules, "new": POSITIVE}},
            -1.0,
            "new is -1.0: it must be a positive, finite",
        ),
        ({}, "many", "new is 'many': it must be a number"),
        ({}, True, "new is True: it must be a number"),
    ]:
        monkeypatch.setitem(table, name, bounded(**bound))
        with pytest.raises(UserError, match=message):
            way(new=wrong)
    names = {"options": {**row.options, "new": "left"}, "choices": {"new": ("left", "right")}}
    monkeypatch.setitem(table, name, replace(row, **names))
    with pytest.raises(UserError, match="'rihgt': did you mean 'right'"):
        way(new="rihgt")
    with pytest.raises(UserError, match="'nwe': did you mean 'new'"):
        way(nwe="right")


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_a_row_describes_its_options(kind: str, name: str) -> None:
    row = TABLES[kind][name]
    assert row.resolve(f"{kind} {name}", {}) == dict(row.options)
    bounded = [*row.choices, *row.ranges, *row.rules, *row.entries]
    assert len(bounded) == len(set(bounded)), "an option has one kind of bound"
    assert set(bounded) <= row.options.keys()
    for option, default in row.options.items():
        assert default is not None or option in bounded, f"{option} has no type"
        assert not isinstance(default, str) or option in bounded, f"{option} is any name"


# options that the target does not take: what is left of them is chosen before it is called
BEFORE = {
    "noise level": {"sampling"},
    "counted grid": {"steps"},
    "loss term": {"lambda", "K", "grid"},
}
# parameters with a default that are no options: what the loop of a sampler may be given beside
# them, and what is published with a preset
BESIDE = {
    "sampler": {"round_sigma", "project", "callback"},
    "preconditioning": {"preserves_variance", "unused_multiple", "has_table"},
}


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_a_row_has_the_options_and_the_defaults_of_its_target(kind: str, name: str) -> None:
    row = TABLES[kind][name]
    parameters = inspect.signature(row.load()).parameters
    defaults = {
        # a term's step is a function there, which its row knows by name
        option: getattr(parameter.default, "__name__", parameter.default)
        for option, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty and option not in BESIDE.get(kind, ())
    }
    assert defaults.items() <= row.options.items()
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not is_open:  # networks hand theirs on to the plan of their levels
        assert row.options.keys() - parameters.keys() <= BEFORE.get(kind, set())


@pytest.mark.parametrize(
    ("row", "option", "functions"),
    [
        (GRIDS["steps"], "spacing", SPACINGS),
        (SAMPLERS["ito_taylor"], "scheme", SCHEMES),
        (SAMPLERS["ito_taylor"], "derivative", FIRST),
        (SAMPLERS["ddpm"], "variance", VARIANCES),
        (TERMS["vlb"], "variance", VARIANCES),
        (PRESETS["edm"], "output", outputs.OUTPUTS),
    ],
)
def test_choices_are_the_functions_that_there_are(
    row: Row, option: str, functions: Mapping[str, Any]
) -> None:
    assert set(row.choices[option]) == functions.keys()


def test_what_guidance_may_clip_is_what_there_is() -> None:
    assert set(get_args(Clip)) == CLIPS.keys()


def test_numbers_that_were_left_as_text_are_read_by_the_type_of_the_option() -> None:
    entry = {
        "name": "sequence_aware",
        "lambda": "1e-1",
        "weights": "1e1",
        "grid": {"name": "steps", "levels": {"name": "beta_linear", "beta_end": "1e-2"}},
    }
    assert entry_with_numbers(TERMS, entry) == {
        "name": "sequence_aware",
        "lambda": 0.1,
        "weights": "1e1",
        "grid": {"name": "steps", "levels": {"name": "beta_linear", "beta_end": 0.01}},
    }
    network = {"name": "ncsnpp", "resample_filter": ["1e0", 3, 3, 1], "dropout": "1e-1"}
    assert entry_with_numbers(NETWORKS, network)["resample_filter"] == [1.0, 3, 3, 1]
    for other in ("1e3", None, {"name": "1e3", "x": "1e3"}, ["1e3"]):
        assert entry_with_numbers(TERMS, other) == other
    _, _, options = resolve_entry("schedule", SCHEDULES, {"name": "ve", "sigma_max": "2e2"})
    assert options == {"sigma_min": 0.02, "sigma_max": 200.0}
    flat = {"name": "heun", "S_max": "inf", "scheme": "1e1", "guidance": {"w": "1e-1"}}
    assert flat_with_numbers(flat) == flat | {"S_max": math.inf, "guidance": {"w": 0.1}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "beta_linear", "num_steps": None}, "num_steps is None: it must be an integer"),
        ({"name": "beta_linear", "num_steps": True}, "num_steps is True: it must be an integer"),
        ({"name": "beta_linear", "num_steps": "1e2"}, "it must be an integer"),
        ({"name": "beta_linear", "num_steps": 10**400}, "it must be an integer"),
        ({"name": "beta_linear", "beta_end": [1]}, "it must be a number above 0 and below 1"),
        ({"name": "beta_linear", "beta_end": math.nan}, "it must be a number above 0 and below 1"),
    ],
)
def test_an_option_of_another_type_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedules.create(entry)


def test_an_entry_within_an_entry_is_checked_too() -> None:
    grid = {"name": "steps", "levels": {"name": "beta_linear", "beta_end": 2}}
    term = {"name": "sequence_aware", "grid": grid}
    with pytest.raises(UserError, match="schedule beta_linear: beta_end is 2"):
        TERMS["sequence_aware"].resolve("loss term", {"grid": grid})
    with pytest.raises(UserError, match="schedule beta_linear: beta_end is 2"):
        losses.create(terms=[term])
    with pytest.raises(UserError, match="noise level discrete: schedule is 3: give a name"):
        losses.create(noise_level={"name": "discrete", "schedule": 3})
