"""Options by which command lines take models. No torch here, so that `--help` answers at once."""

import click

from torch_utils.command import UrlOrPath

FORM = "FILE|DIR|URL|NAME"


network_option = click.option(
    "--network",
    type=UrlOrPath(),
    metavar=FORM,
    required=True,
    help="Snapshot, run for its newest, or any checkpoint of docs/checkpoints.md.",
)
guidance_network_option = click.option(
    "--guidance-network",
    type=UrlOrPath(),
    metavar=FORM,
    help="Guide by this model instead of the null label (autoguidance).",
)
model_config_option = click.option(
    "--model-config",
    metavar="YAML",
    help="Facts that the tensors of a foreign --network do not tell.  "
    "[default: the file beside it]",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(["ema", "raw"]),
    default="ema",
    show_default=True,
    help="Which weights of a foreign --network that has both.",
)
