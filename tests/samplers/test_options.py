"""The flat mapping: what is wrapped around the sampler, and what beats what."""

from typing import Any

import pytest

from diffusion.guidance import CLIPS
from samplers.command_line import FLAGS, settings_of
from samplers.guidance_settings import Guidance
from samplers.settings import generation_settings, overlay
from torch_utils.errors import UserError


def test_what_is_left_out_has_its_default() -> None:
    settings = generation_settings({"steps": 5, "rho": 3})
    assert (settings.name, settings.steps, settings.grid["rho"]) == ("heun", 5, 3.0)
    assert (settings.clip, settings.guidance, settings.solver_dtype) == (False, None, "float64")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (2, Guidance(scale=2.0)),
        (1, Guidance(scale=1.0)),
        ({"w": 0.5}, Guidance(scale=1.5)),
        ({"scale": 0, "interval": [0.2, 5]}, Guidance(scale=0.0, interval=(0.2, 5.0))),
        ({"scale": 2, "interval": [None, 5]}, Guidance(scale=2.0, interval=(0.0, 5.0))),
        ({"scale": 2, "interval": [0.2, None]}, Guidance(scale=2.0, interval=(0.2, float("inf")))),
        (
            {"scale": 2, "clip": "both", "batch": "split"},
            Guidance(scale=2.0, clip="both", batch="split"),
        ),
    ],
)
def test_guidance_is_a_scale_or_a_mapping(value: Any, expected: Guidance | None) -> None:
    assert generation_settings({"guidance": value}).guidance == expected


def test_clip_is_guidance_clip_after_unless_that_is_given() -> None:
    for mapping, rule in [
        ({}, "none"),
        ({"clip": True}, "after"),
        ({"clip": True, "guidance": 2}, "after"),
        ({"clip": True, "guidance": {"scale": 2, "clip": "before"}}, "before"),
        ({"clip": True, "guidance": {"scale": 2, "clip": "none"}}, "none"),
        ({"guidance": {"scale": 2, "clip": "both"}}, "both"),
        ({"clip": "dynamic"}, "after"),
        ({"clip": "dynamic", "guidance": {"scale": 2, "clip": "before"}}, "before"),
        ({"guidance": 2}, "none"),
    ]:
        settings = generation_settings(mapping)
        assert settings.clip_rule == rule
        assert settings.clip_rule in CLIPS


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"guidnce": 2}, "did you mean 'guidance'"),
        ({"solver_dtyp": "float32"}, "did you mean 'solver_dtype'"),
        ({"S_chrun": 2}, "did you mean 'S_churn'"),
        ({"name": "huen"}, "did you mean 'heun'"),
        ({"name": ["heun"]}, "sampler name"),
        ({"clip": 2}, "clip is 2: it must be true, false or dynamic"),
        ({"solver_dtype": "float16"}, "it must be float64 or float32"),
        ({"solver_dtype": 64}, "it must be float64 or float32"),
        ({"guidance": "x"}, "guidance is 'x': it must be a number"),
        ({"guidance": True}, "guidance is true: give a number"),
        ({"guidance": float("nan")}, "guidance is nan: it must be finite"),
        ({"guidance": {"interval": [1, 2]}}, "no scale"),
        ({"guidance": {"scale": 1, "w": 0}}, "both scale and w"),
        ({"guidance": {"w": "x"}}, "guidance w is 'x'"),
        ({"guidance": {"scal": 1}}, "did you mean 'scale'"),
        (
            {"guidance": {"scale": 1, "clip": "befor"}},
            "it must be none, before, after or both",
        ),
        (
            {"guidance": {"scale": 1, "clip": ["x"]}},
            "it must be none, before, after or both",
        ),
        ({"guidance": {"scale": 1, "batch": 2}}, "it must be joint or split"),
        ({"guidance": {"scale": 1, "interval": 3}}, "interval is 3: give a list"),
        ({"guidance": {"scale": 1, "interval": [3, 2]}}, "the lower one first"),
        ({"guidance": {"scale": 1, "interval": [2, 2]}}, "the lower one first"),
        ({"guidance": {"scale": 1, "interval": [-1, 2]}}, "must be at least 0"),
        ({"guidance": {"scale": 1, "interval": [1, 2, 3]}}, "give a list of 2"),
        ({"guidance": {"scale": 1, "interval": ["a", 2]}}, "must be a number"),
    ],
)
def test_what_cannot_be_used_is_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generation_settings(mapping)


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        ({"steps": 3, "rho": 5}, {"steps": 4}, {"steps": 4, "rho": 5}),
        # another sampler: what it has too is kept, the rest and the grid are left behind
        (
            {"steps": 3, "rho": 5, "S_churn": 2, "clip": True},
            {"name": "euler"},
            {"name": "euler", "steps": 3, "rho": 5, "clip": True},
        ),
        (
            {"name": "ddim", "grid": "rho", "rho": 5, "eta": 1},
            {"name": "ddpm"},
            {"name": "ddpm"},
        ),
        ({"name": "heun", "S_churn": 2}, {"name": "heun"}, {"name": "heun", "S_churn": 2}),
        # another grid
        ({"rho": 5, "sigma_max": 9}, {"grid": "ve"}, {"grid": "ve", "sigma_max": 9}),
        ({"grid": "vp"}, {"discretization": "edm"}, {"discretization": "edm"}),
        # guidance, part by part
        ({"guidance": 2}, {"guidance": {"scale": 3}}, {"guidance": {"scale": 3}}),
        (
            {"guidance": {"w": 1, "clip": "both"}},
            {"guidance": {"interval": [1, 2]}},
            {"guidance": {"scale": 2, "clip": "both", "interval": [1, 2]}},
        ),
        ({"guidance": {"scale": 2}}, {"guidance": {"w": 0}}, {"guidance": {"scale": 1}}),
        ({}, {"guidance": {"interval": [1, 2]}}, {}),
    ],
)
def test_what_was_given_beats_what_was_stored(
    stored: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert overlay(stored, given) == expected


def test_an_option_with_two_meanings_does_not_travel() -> None:
    """S_max ends a churn window, but starts ito_taylor's second-order branch.

    ddim's eta is a share of the noise, 0 by default; that of an SDE is its strength.
    """
    stored = {"S_churn": 40, "S_max": 50, "steps": 9}
    assert overlay(stored, {"name": "ito_taylor"}) == {"name": "ito_taylor", "steps": 9}
    back = overlay({"name": "ito_taylor", "S_max": 5}, {"name": "ablation"})
    assert back == {"name": "ablation"}
    assert overlay(stored, {"name": "ablation"})["S_max"] == 50
    sde = {"name": "dpmpp_3m_sde", "eta": 2.0}
    assert overlay(sde, {"name": "ddim"}) == {"name": "ddim"}
    assert overlay({"name": "ddim", "eta": 0.0}, {"name": "dpmpp_3m_sde"}) == {
        "name": "dpmpp_3m_sde"
    }
    assert overlay(sde, {"name": "dpmpp_2m_sde"})["eta"] == 2.0


def test_given_options_that_the_sampler_lacks_are_refused_not_dropped() -> None:
    with pytest.raises(UserError, match="not of sampler euler"):
        settings_of({"name": "heun"}, {"sampler": "euler", "S_churn": 2.0})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"randn_like": "ddb"}, "ito_taylor"),
        ({"randn_like": "ddb", "sampler": "ito_taylor"}, "ito_taylor"),
        ({"randn_like": "db"}, "ddim"),
        ({"randn_like": "db", "sampler": "heun"}, "heun"),
        ({"solver": "euler"}, "ablation"),
        ({"disc": "vp"}, "ablation"),
        ({"schedule": "ve"}, "ablation"),
        ({"scaling": "vp"}, "ablation"),
        ({"disc": "ve", "sampler": "heun"}, "heun"),
        ({}, "ddim"),
    ],
)
def test_published_options_stand_for_samplers(values: dict[str, Any], expected: str) -> None:
    settings, _, _ = settings_of({"name": "ddim"}, values)
    assert settings.name == expected
    if values.get("disc"):
        assert settings.grid_name == values["disc"]


def test_correlated_noise_belongs_to_one_sampler() -> None:
    with pytest.raises(UserError, match="--randn_like=ddb is the noise of sampler ito_taylor"):
        settings_of({}, {"randn_like": "ddb", "sampler": "heun"})


def test_the_published_command_of_the_second_order_solver_works() -> None:
    values = {"randn_like": "ddb", "rho": 3.0, "steps": 40, "S_churn": 80.0, "S_max": 1.0}
    settings, remarks, warnings = settings_of({"name": "heun", "S_churn": 5.0}, values)
    assert settings.name == "ito_taylor"
    assert remarks == [
        "--randn_like=ddb: sampler ito_taylor, scheme strong1.5; what the published program "
        "computes is --scheme=published"
    ]
    assert settings.options["rho"] == settings.grid["rho"] == 3.0
    assert [warning.split()[0] for warning in warnings] == ["--S_churn", "--S_max"]
    values |= {"scheme": "published"}
    settings, remarks, warnings = settings_of({}, values)
    assert settings.options["S_max"] == 1.0
    assert [warning.split()[0] for warning in warnings] == ["--S_churn"]
    assert remarks[0].endswith("as published, scheme published")
    assert "second-order branch" in remarks[1]
    ordinary, remarks, warnings = settings_of({}, {**values, "randn_like": "db", "scheme": None})
    assert ordinary.name == "heun"
    assert ordinary.options["S_churn"] == 80.0
    assert not warnings
    assert "ddb" not in "".join(remarks)


def test_values_are_read_as_yaml() -> None:
    entries = ("S_max=inf", "S_noise=1e-3", "sigma_min=0.5", "steps=7", "guidance={w: 1}")
    settings, _, _ = settings_of({}, {"sampler_option": entries, "S_churn": 1.0})
    options = settings.options
    assert (options["S_max"], options["S_noise"], settings.steps) == (float("inf"), 1e-3, 7)
    assert settings.guidance == Guidance(scale=2.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler_option": ("steps",)}, "give KEY=VALUE"),
        ({"sampler_option": ("=3",)}, "give KEY=VALUE"),
        ({"sampler_option": ("steps=3", "steps=4")}, "twice"),
        ({"sampler_option": ("steps=3",), "steps": 4}, "twice"),
        ({"sampler_option": ("steps=[3",)}, "is not YAML"),
        ({"sampler_option": ("stps=3",)}, "did you mean 'steps'"),
        ({"guidance": "two"}, "'two' is not a number"),
        ({"guidance": "v=2"}, "w=FLOAT"),
        ({"guidance": "nan"}, "guidance.scale is nan"),
        ({"guidance_interval": "1"}, "LO,HI"),
        ({"guidance_interval": "1,x"}, "LO,HI"),
        ({"guidance_interval": "2,1", "guidance": "2"}, "the lower one first"),
    ],
)
def test_bad_words_on_the_command_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of({}, values)


def test_guidance_on_the_command_line() -> None:
    values = {
        "guidance": "w=0.1",
        "guidance_interval": ",5",
        "guidance_clip": "both",
        "guidance_batch": "split",
    }
    settings, remarks, warnings = settings_of({"guidance": 7}, values)
    assert settings.guidance == Guidance(scale=1.1, interval=(0.0, 5.0), clip="both", batch="split")
    assert (remarks, warnings) == ([], [])


@pytest.mark.parametrize(
    ("stored", "values", "has_guide", "flags"),
    [
        ({}, {"S_noise": 1.0, "S_min": 0.1, "S_max": 5.0}, False, ["S_min", "S_max", "S_noise"]),
        ({"S_churn": 2}, {"S_noise": 1.0}, False, []),
        ({}, {"S_noise": 1.0, "S_churn": 2.0}, False, []),
        ({}, {"guidance_interval": "1,2"}, False, ["guidance-interval"]),
        ({"guidance": 2}, {"guidance_interval": "1,2"}, False, []),
        ({}, {"guidance_batch": "split"}, False, ["guidance-batch"]),
        ({}, {"guidance_clip": "both"}, False, ["guidance-clip"]),
        ({}, {"guidance": "1", "guidance_clip": "both"}, False, []),
        ({}, {"guidance": "1", "guidance_interval": "1,2"}, False, ["guidance-interval"]),
        ({}, {"guidance": "1"}, True, ["guidance-network"]),
        ({}, {"guidance": "2", "guidance_batch": "joint"}, True, ["guidance-batch"]),
        ({}, {"guidance": "2", "guidance_clip": "none", "clip": True}, False, ["clip"]),
        ({}, {"guidance": "2", "clip": True}, False, []),
        ({}, {"guidance": "2", "guidance_clip": "before", "dynamic_clip": True}, False, []),
        ({}, {"guidance": "2", "guidance_clip": "none", "dynamic_clip": True}, False, ["clip"]),
        ({}, {"sampler": "ito_taylor", "S_max": 5.0}, False, ["S_max"]),
        ({}, {"sampler": "restart", "S_noise": 1.1}, False, []),
        ({"name": "restart", "restarts": []}, {"S_noise": 1.1}, False, ["S_noise"]),
        ({}, {"sampler": "dpmpp_2m_sde", "S_noise": 1.1}, False, []),
        ({}, {"sampler": "dpmpp_2m_sde", "S_noise": 1.1, "eta": 0.0}, False, ["S_noise"]),
        ({}, {"sampler": "ito_taylor", "scheme": "published", "S_max": 5.0}, False, []),
    ],
)
def test_an_option_without_effect_draws_a_warning(
    stored: dict[str, Any], values: dict[str, Any], has_guide: bool, flags: list[str]
) -> None:
    _, _, warnings = settings_of(stored, values, has_guide=has_guide)
    assert [line.split(" has no effect: ")[0] for line in warnings] == [f"--{f}" for f in flags]


def test_the_reading_of_a_threshold_is_said() -> None:
    published = {"sampler": "ito_taylor", "scheme": "published"}
    _, (line,), _ = settings_of({}, {**published, "S_max": 5.0})
    assert line.startswith("S_max=5: the second-order branch")
    _, (line,), _ = settings_of({}, published)
    assert line.startswith("S_max=50: the second-order branch")
    _, (line,), _ = settings_of({}, {"S_churn": 2.0, "S_max": 5.0})
    assert line.startswith("S_max=5: the highest noise level that gets fresh noise")
    assert settings_of({}, {"S_churn": 2.0})[1] == []


def test_every_option_lands_somewhere_of_its_own() -> None:
    assert len({flag.name for flag in FLAGS}) == len({flag.key for flag in FLAGS}) == len(FLAGS)
