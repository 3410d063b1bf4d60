"""Recipes: YAML files that extend one another by `base:`, overlaid with the command line."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from torch_utils.errors import UserError, nearest
from torch_utils.sections import is_text, validated
from torch_utils.shipped import shipped
from torch_utils.yaml_files import parse_yaml, read_yaml
from training.config import DEFAULT_NETWORK, DEFAULT_SAMPLING, TrainingConfig

# entries of these sections have a `name` and options of their own: another name starts afresh
NAMED = {
    ("network",),
    ("preconditioning",),
    ("preconditioning", "schedule"),
    ("sampler",),
    ("loss", "noise_level"),
    ("loss", "weight"),
}
# keys of a section that say the same thing in two ways: whichever is set last counts
ALTERNATIVES: dict[tuple[str, ...], tuple[str, ...]] = {("sampler",): ("steps", "calls")}
# sections with a switch: whatever sets one of their keys turns them on, unless it says otherwise
SWITCHED = {("preview",), ("evaluate",)}


@dataclass(frozen=True)
class Layer:
    """A part of a config and where it comes from.

    Attributes:
        tree: the part.
        source: where it comes from, for messages: recipe FILE, option --lr, ...
        sources: dotted key -> the source of that key alone, if it has one of its own.
    """

    tree: Mapping[str, Any]
    source: str
    sources: Mapping[str, str] = field(default_factory=dict)


def recipe_layers(
    recipe: str | os.PathLike[str] | Mapping[str, Any], seen: tuple[Path, ...] = ()
) -> list[Layer]:
    """Read a YAML recipe and its bases; the bases come first.

    Args:
        recipe: the file, or its content as a mapping; `base:` is relative to the file's folder. Our
            own configs/NAME.yaml are found from every folder.
        seen: files on the way here, to refuse a circle.

    Raises:
        UserError: no such file, not YAML, not a mapping, or a circle of bases.
    """
    if isinstance(recipe, Mapping):
        file, tree, source = Path(), dict(recipe), "the given config"
    else:
        file = shipped(recipe).resolve()
        if file in seen:
            raise UserError(f"{recipe}: its bases form a circle")
        tree = _read(file, recipe)
        source = f"base {os.path.relpath(file)}" if seen else f"recipe {recipe}"
    base = tree.pop("base", None)
    layer = Layer(tree, source)
    if base is None:
        return [layer]
    return [*recipe_layers(file.parent / str(base), (*seen, file)), layer]


def _read(file: Path, name: str | os.PathLike[str]) -> dict[str, Any]:
    """What is in a recipe; `name` is how the user calls it."""
    try:
        tree = read_yaml(file, f"recipe {name}")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read recipe {name}: {problem}{_near(Path(name))}") from None
    if not isinstance(tree, (dict, type(None))):
        raise UserError(f"recipe {name} is not a mapping of sections")
    return tree or {}


def _near(path: Path) -> str:
    """The end of a message on a missing recipe: one of nearly the same name, if there is one."""
    if path.exists():
        return ""
    ours = Path(__file__).parents[1] / "configs"
    for folder in (path.parent, ours):
        files = {file.stem: file for file in sorted(folder.glob("*.y*ml"))}
        for near in nearest(path.stem, files):
            name = os.path.relpath(files[near], ours.parent if folder == ours else None)
            return f": did you mean {name}?"
    return ""


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
            ways = ALTERNATIVES.get((*path, key), ())
            if value.keys() & set(ways):
                merged[key] = {k: v for k, v in merged[key].items() if k in value or k not in ways}
            if (*path, key) in SWITCHED and value and "enabled" not in value:
                merged[key].pop("enabled", None)
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """Read `section.key=value`; the value is YAML, so `[1,2]`, `true` and `null` mean that.

    If the key holds a text, the value is taken as it stands, unless it is quoted or null.

    Raises:
        UserError: no `=`, an empty key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UserError(f"{text!r} is not an override: write section.key=value, e.g. run.batch=128")
    if is_text(TrainingConfig, path) and not re.fullmatch(r"\s*(['\"].*|null|~)\s*", value, re.S):
        return nested(path, value)
    return nested(path, parse_yaml(value, f"{text!r}: the value") if value else "")


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """A tree with one leaf."""
    for key in reversed(path[1:]):
        value = {key: value}
    return {path[0]: value}


def leaves(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], Any]]:
    """Path and value of every leaf of a tree; an empty mapping is a leaf, too."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in tree.items():
        here = (*path, str(key))
        found += leaves(value, here) if isinstance(value, Mapping) and value else [(here, value)]
    return found


def load_config(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    base: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
) -> TrainingConfig:
    """Build the config: defaults, then bases, the recipe, options, overrides.

    Args:
        recipe: YAML file, its content as a mapping, or None.
        options: a tree from the command line's own options.
        overrides: `section.key=value` texts.
        base: a whole config below the recipe, in place of the defaults.
        flags: dotted key -> the option that sets it, for messages.

    Raises:
        UserError: a key or value does not fit; the message names what set it.
    """
    # an option may change an entry without naming it, so the default names must be there
    tree: dict[str, Any] = dict(base or {}) or {
        "network": DEFAULT_NETWORK,
        "sampler": DEFAULT_SAMPLING,
    }
    layers = [] if recipe is None else recipe_layers(recipe)
    named = {key: f"option {flag}" for key, flag in (flags or {}).items()}
    layers.append(Layer(options or {}, "command line", named))
    layers += [Layer(parse_override(text), f"{text} on the command line") for text in overrides]
    for layer in layers:
        tree = merge(tree, layer.tree)
    below = "the config of the run" if base else "the config"
    config: TrainingConfig = validated(
        TrainingConfig, tree, lambda path: origin(layers, path) or below
    )
    return config


def origin(layers: Sequence[Layer], path: Sequence[str]) -> str | None:
    """What set a key: the last layer that has the key, or a section or key of the same path."""
    for layer in reversed(layers):
        for found, _ in leaves(layer.tree):
            shorter = min(len(found), len(path))
            if found[:shorter] == tuple(path[:shorter]):
                return layer.sources.get(".".join(found), layer.source)
    return None


def dump_config(config: TrainingConfig) -> str:
    """The config as a YAML recipe."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
