"""Recipes: YAML files that extend one another by `base:`, overlaid with the command line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from models.config import validated
from torch_utils.errors import UserError
from torch_utils.yaml_files import parse_yaml, read_yaml
from training.config import DEFAULT_NETWORK, DEFAULT_SAMPLER, TrainingConfig

# entries of these sections have a `name` and options of their own: another name starts afresh
NAMED = {
    ("network",),
    ("preconditioning",),
    ("preconditioning", "schedule"),
    ("sampler",),
    ("loss", "noise_level"),
    ("loss", "weight"),
}


def read_recipe(path: str | os.PathLike[str], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML recipe and the ones it extends.

    Args:
        path: the file; `base:` in it is relative to its folder.
        seen: files on the way here, to refuse a circle.

    Raises:
        UserError: no such file, not YAML, not a mapping, or a circle of bases.
    """
    file = Path(path).resolve()
    if file in seen:
        raise UserError(f"{path}: its bases form a circle")
    try:
        tree = read_yaml(file, f"recipe {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read recipe {path}: {getattr(error, 'strerror', error)}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"recipe {path} is not a mapping of sections")
    base = tree.pop("base", None)
    if base is None:
        return tree
    return merge(read_recipe(file.parent / str(base), (*seen, file)), tree)


def merge(
    below: Mapping[str, Any], above: Mapping[str, Any], path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Overlay one tree on another, key by key; lists and values are replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, str) and (*path, key) in NAMED:
            old = {"name": old}
        if not (isinstance(value, Mapping) and isinstance(old, Mapping)):
            merged[key] = value
        elif (*path, key) in NAMED and value.get("name", old.get("name")) != old.get("name"):
            merged[key] = dict(value)
        else:
            merged[key] = merge(old, value, (*path, key))
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """Read `section.key=value`; the value is YAML, so `[1,2]`, `true` and `null` mean that.

    Raises:
        UserError: no `=`, an empty key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"{text!r} is no override: write section.key=value, e.g. run.batch=128")
    tree: Any = parse_yaml(value, f"{text!r}: the value") if value else ""
    if isinstance(tree, str):
        tree = _number(tree)
    for part in reversed(parts[1:]):
        tree = {part: tree}
    return {parts[0]: tree}


def _number(text: str) -> Any:
    """YAML 1.1 reads 2e-3 as text; people mean the number."""
    try:
        return float(text) if any(c in text for c in "eE") and text[0] in "+-.0123456789" else text
    except (ValueError, IndexError):
        return text


def load_config(
    recipe: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    base: Mapping[str, Any] | None = None,
) -> TrainingConfig:
    """Build the config: defaults, then bases, the recipe, options, overrides.

    Args:
        recipe: YAML file, or None.
        options: a tree from the command line's own options.
        overrides: `section.key=value` texts.
        base: a whole config below the recipe, in place of the defaults.

    Raises:
        UserError: whatever does not fit.
    """
    # the defaults' names must be there for options that only change an entry's options
    tree: dict[str, Any] = dict(base or {}) or {
        "network": DEFAULT_NETWORK,
        "sampler": DEFAULT_SAMPLER,
    }
    layers: list[Mapping[str, Any]] = [options or {}, *map(parse_override, overrides)]
    if recipe is not None:
        layers.insert(0, read_recipe(recipe))
    for layer in layers:
        tree = merge(tree, _floats(layer))
    config: TrainingConfig = validated(TrainingConfig, tree, str(recipe or "command line"))
    return config


def _floats(tree: Any) -> Any:
    """Numbers like 2e-3, which YAML 1.1 leaves as text, as numbers; everywhere in a tree."""
    if isinstance(tree, Mapping):
        return {key: _floats(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_floats(value) for value in tree]
    return _number(tree) if isinstance(tree, str) else tree


def dump_config(config: TrainingConfig) -> str:
    """The config as YAML that `read_recipe` takes."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
