"""Look into snapshots and foreign checkpoints without executing anything that they contain."""

from typing import Any

import click

from importers.spellings import explain
from torch_utils.command import Command, Group
from torch_utils.errors import explain_names_with

explain_names_with(explain)


@click.group(cls=Group)
def main() -> None:
    """Look into snapshots and foreign checkpoints."""


@main.command(cls=Command)
@click.argument("file", metavar="FILE|DIR")
@click.option(
    "--model-config",
    metavar="YAML",
    help="Facts that a foreign checkpoint's tensors do not tell.  [default: the file beside it]",
)
@click.option(
    "--weights",
    type=click.Choice(["ema", "raw"]),
    default="ema",
    show_default=True,
    help="Which weights of a foreign checkpoint that has both.",
)
def info(file: str, model_config: str | None, weights: str) -> None:
    """Print what a file holds: a snapshot of ours, or a DDPM or v-diffusion checkpoint.

    A run's directory stands for its newest snapshot. Every tensor of a foreign checkpoint is
    matched with the network that it is for.
    """
    import yaml

    from models.snapshot import find_snapshot

    path = str(find_snapshot(file))
    is_ours = path.endswith(".safetensors")
    record = _snapshot(path) if is_ours else _foreign(path, model_config, weights)
    click.echo(yaml.safe_dump(record, sort_keys=False), nl=False)


def _snapshot(path: str) -> dict[str, Any]:
    from models.snapshot import read_info

    found = read_info(path)
    return {
        "model": found.model.model_dump(mode="json"),
        "sampling": found.sampling,
        "label_names": found.label_names,
        "label_dropout": found.label_dropout,
        "images": found.images,
        "ema": found.ema,
        "versions": found.versions,
    }


def _foreign(path: str, model_config: str | None, weights: str) -> dict[str, Any]:
    from importers.checkpoint import load_checkpoint

    found = load_checkpoint(path, model_config=model_config, weights=weights)
    return {
        "family": found.family,
        "network": _plain(found.network),
        "sizes": _plain(found.sizes),
        "settings": _plain(found.settings),
        "tensors": len(found.state_dict),
        "parameters": sum(tensor.numel() for tensor in found.state_dict.values()),
    }


def _plain(tree: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


if __name__ == "__main__":
    main()
