"""The table of networks: laziness, defaults and what it says about impossible values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import networks
from networks.rules import OPTION_RULES, check_option
from tests.networks.small import SMALL
from torch_utils.errors import UserError


def test_importing_the_table_does_not_import_torch() -> None:
    code = "import sys, networks; networks.options('ddpmpp'); sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_defaults_obey_the_rules(name: str) -> None:
    for key, value in networks.options(name).items():
        check_option(key, value)


def test_options_are_a_copy() -> None:
    networks.options("ddpmpp")["channel_mult"].append(7)
    assert networks.options("ddpmpp")["channel_mult"] == [2, 2, 2]


def test_every_rule_belongs_to_an_option() -> None:
    assert set(OPTION_RULES) == {key for row in networks.NETWORKS.values() for key in row.options}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_chanels": 16}, "did you mean 'model_channels'"),
        ({"num_blocks": "4"}, "num_blocks is '4': it must be an integer"),
        ({"dropout": 1.5}, "dropout must be a number from 0 to 1, not 1.5"),
        ({"num_blocks": 0}, "num_blocks must be a positive integer up to 1000, not 0"),
        ({"num_blocks": 10**9}, "num_blocks must be a positive integer up to 1000, not 1000000000"),
        ({"model_channels": 10**9}, "model_channels must be a positive integer up to 1048576"),
        ({"channel_mult": [1] * 17}, "channel_mult must be a list of 1 to 16 positive integers"),
        ({"label_dim": 10**9}, "label_dim must be an integer of at least 0 and at most 1048576"),
        ({"num_blocks": True}, "num_blocks is True: it must be an integer"),
        ({"channel_mult": []}, "channel_mult must be a list"),
        ({"channel_mult": 2}, "channel_mult is 2: it must be a list"),
        ({"attn_resolutions": [0]}, "attn_resolutions must be a list of positive integers"),
        ({"resample_filter": [1, 2, 1]}, "resample_filter must be a list of an even number"),
        ({"encoder_type": "skipping"}, "encoder_type must be one of standard, skip, residual"),
        ({"img_resolution": 10}, "height of the images must be a multiple of 4"),
        ({"img_resolution": (8, 6)}, "width of the images must be a multiple of 4"),
        ({"img_resolution": (8, 8, 8)}, "img_resolution must be"),
        ({"img_resolution": 0}, "img_resolution must be"),
        ({"img_channels": 0}, "img_channels must be a positive integer"),
        ({"label_dim": -1}, "label_dim must be an integer of at least 0"),
        ({"out_channels": 0}, "out_channels must be a positive integer"),
        ({"model_channels": 3}, "8x8_block0 would normalise 3 channels"),
        ({"model_channels": 36, "channel_mult": [1, 4, 4]}, "144 channels"),
        ({"model_channels": 5}, "must be even, not 5"),
    ],
)
def test_impossible_values_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    given = {"img_resolution": 8, "img_channels": 2, **SMALL, "channel_mult": [1, 2, 2]} | options
    if options.get("model_channels") == 3:
        given["channel_mult_noise"] = 2
    with pytest.raises(UserError) as caught:
        networks.create("ddpmpp", **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown network 'ncsn\\+\\+': did you mean 'ncsnpp'"):
        networks.options("ncsn++")
