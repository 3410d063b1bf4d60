"""Files that tell what the tensors of a foreign checkpoint do not: found, read and translated.

Such a file is a YAML or JSON mapping of our keys, or of the family's published ones; the config
that a published program keeps in its run directory is one.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from importers.published import flattened, published_keys, translate
from importers.reading import SETTINGS
from networks import NETWORKS, SIZES
from torch_utils.bounded import read_text
from torch_utils.errors import UserError
from torch_utils.yaml_files import MAX_BYTES, parse_yaml

SUFFIXES = (".yaml", ".yml", ".json")
# SA-DPM writes its config with the class of each section, which is left out
_CLASS = re.compile(r"!!python/object:argparse\.Namespace\b")

# v-diffusion's configs name the data set instead of its size
_RESOLUTIONS = {
    "mnist": {"resolution": 32},
    "cifar10": {"resolution": 32},
    "celeba": {"resolution": 64},
}


def side_file(path: str | os.PathLike[str]) -> Path | None:
    """The description of a checkpoint, if there is one.

    Looked for is a file of the same name beside it; then the config of the run where the published
    programs keep it: SA-DPM's config.yml beside, v-diffusion's config.json above the folder ckpts,
    the DDPM implementation's config-TIME.yaml, of which the newest counts, above ckpt/STEP.
    """
    file = Path(path).absolute()
    found = [file.with_suffix(suffix) for suffix in SUFFIXES]
    if re.fullmatch(r"(ckpt|model)(_.*)?\.pth", file.name):
        found.append(file.parent / "config.yml")
    if file.parent.name == "ckpts":
        found.append(file.parent.parent / "config.json")
    for step in (file, file.parent):
        if step.parent.name == "ckpt":
            found += sorted(step.parent.parent.glob("config-*.yaml"), reverse=True)
    return next((candidate for candidate in found if candidate.is_file()), None)


def read_side_file(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON mapping.

    Raises:
        UserError: it cannot be read, or is not a mapping.
    """
    try:
        text = _CLASS.sub("", read_text(path, MAX_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"cannot read {path}: {problem}") from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a mapping of keys to values")
    for key in tree:
        if not isinstance(key, str):
            raise UserError(f"{path}: the key {key!r} is not a name")
    return tree


def in_our_keys(
    family: str, given: Mapping[str, Any], passed_over: frozenset[str]
) -> dict[str, Any]:
    """Published spellings translated to ours, together with keys that are ours already.

    Args:
        family: a name in `importers.families.FAMILIES`.
        given: the mapping of a side file.
        passed_over: known keys that are not about the model.
    """
    flat, known = flattened(given), published_keys(family)
    if family == "v-diffusion":
        flat = _RESOLUTIONS.get(_data_set(given), {}) | flat
    is_whole = flat != given  # a published file, which also has keys that are not about the model
    options = (option for row in NETWORKS.values() for option in row.options)
    own = {*SETTINGS, *options, *SIZES, "img_resolution"}
    about = {k: v for k, v in flat.items() if k not in passed_over or k in known}
    ours = {k: v for k, v in about.items() if k not in known and (k in own or not is_whole)}
    return translate(family, {k: v for k, v in about.items() if k in known}, ours)


def _data_set(given: Mapping[str, Any]) -> str:
    data = given.get("data")
    return str(data.get("name", "")).lower() if isinstance(data, Mapping) else ""
