"""The table of networks: laziness, defaults and what it says about impossible values."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import networks
from tests.networks.small import SMALL
from torch_utils.errors import UserError


def test_importing_the_table_does_not_import_torch() -> None:
    code = "import sys, networks; networks.options('ddpmpp'); sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_options_are_a_copy() -> None:
    networks.options("ddpmpp")["channel_mult"].append(7)
    assert networks.options("ddpmpp")["channel_mult"] == [2, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_chanels": 16}, "did you mean 'model_channels'"),
        ({"num_blocks": "4"}, "num_blocks is '4': it must be an integer"),
        ({"dropout": 1.5}, "network ddpmpp: dropout is 1.5: it must be from 0 to 1"),
        ({"num_blocks": 0}, "num_blocks is 0: it must be from 1 to 1000"),
        ({"num_blocks": 10**9}, "num_blocks is 1000000000: it must be from 1 to 1000"),
        ({"model_channels": 10**9}, "model_channels is 1000000000: it must be from 1 to 1048576"),
        ({"channel_mult": [1] * 17}, "it must be a list of 1 to 16 positive integers"),
        ({"label_dim": 10**9}, "it must be an integer of at least 0 and at most 1048576"),
        ({"num_blocks": True}, "num_blocks is True: it must be an integer"),
        ({"channel_mult": []}, "channel_mult is []: it must be a list"),
        ({"channel_mult": 2}, "channel_mult is 2: it must be a list"),
        ({"attn_resolutions": [0]}, "attn_resolutions is [0]: it must be a list of positive"),
        ({"resample_filter": [1, 2, 1]}, "it must be a list of an even number of numbers"),
        ({"encoder_type": "skipping"}, "encoder_type of network ddpmpp: 'skipping'"),
        ({"img_resolution": 10}, "height of the images must be a multiple of 4"),
        ({"img_resolution": (8, 6)}, "width of the images must be a multiple of 4"),
        ({"img_resolution": (8, 8, 8)}, "img_resolution is (8, 8, 8): it must be"),
        ({"img_resolution": 0}, "img_resolution is 0: it must be one positive integer, or two"),
        ({"img_channels": 0}, "img_channels is 0: it must be an integer of at least 1"),
        ({"label_dim": -1}, "label_dim is -1: it must be an integer of at least 0"),
        ({"out_channels": 0}, "out_channels is 0: it must be an integer of at least 1"),
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
