"""What images were made of, kept beside them, so that no later command mixes them with others.

In a folder it is a hidden file, which no reader of images takes for one. A file of images that
were there before, and that may be of something else, are listed in it by size and time.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from samplers.requests import LabelWords
from samplers.sampling import Sampling
from torch_utils.bounded import read_file
from torch_utils.errors import UserError
from torch_utils.files import replacing
from torch_utils.jsons import parse_json, strict

NAME = ".generated.json"
Stamp = tuple[int, int]  # size in bytes, time of the last write in ns
_MAX_BYTES, _MAX_VALUES = 2**30, 2**26
_DIGITS = 32  # hexadecimal, of a digest
_LONG = 200  # characters of a label that is kept as text
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Record:
    """What the images of a folder were made of.

    Attributes:
        request: of `request_of`.
        strangers: images that were there before and need not be of it, by relative name. One that
            has been written since has another stamp.
    """

    request: Mapping[str, Any]
    strangers: Mapping[str, Stamp] = field(default_factory=dict)


def request_of(
    sampling: Sampling, words: LabelWords, *, rng_device: str, subdirs: bool
) -> dict[str, Any]:
    """Everything that an image depends on beside its seed, as strict JSON has it.

    Rounding is left out: device, batch and number of processes.

    Args:
        sampling: the settings, and the models by the digest of their weights, which another
            precision changes, too.
        words: the labels that were asked for.
        rng_device: where random numbers are drawn.
        subdirs: whether there is a folder for every thousand seeds.
    """
    found = {
        "sampler": sampling.settings.as_mapping(),
        "network": digest(sampling.denoiser),
        "guidance network": None if sampling.guide is None else digest(sampling.guide),
        "labels": {option: _label(option, value) for option, value in words.given},
        "rng device": rng_device,
        "subdirs": subdirs,
    }
    copy: dict[str, Any] = json.loads(json.dumps(strict(found)))
    return copy


def _label(option: str, value: str) -> str:
    if option == "--labels":
        return _hex(hashlib.sha256(Path(value).read_bytes()))
    return value if len(value) <= _LONG else _hex(hashlib.sha256(value.encode()))


def digest(denoiser: Denoiser) -> str:
    """32 hexadecimal digits for a model: its weights, and how they become a denoiser."""
    parts, schedule = denoiser.preconditioning, denoiser.preconditioning.schedule
    told = repr(schedule) if dataclasses.is_dataclass(schedule) else type(schedule).__name__
    found = hashlib.sha256(f"{dataclasses.replace(parts, schedule=None)} {told}".encode())
    tensors: dict[str, Tensor | None] = dict(denoiser.state_dict())
    tensors["log_levels"] = denoiser.log_levels
    for name, tensor in tensors.items():
        if tensor is not None:
            plain = tensor.detach().cpu().contiguous()
            found.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
            found.update(plain.flatten().view(torch.uint8).numpy().data)
    return _hex(found)


def _hex(found: Any) -> str:
    return str(found.hexdigest()[:_DIGITS])


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first way in which two requests differ, in words; None if they are one."""
    for key in dict.fromkeys([*now, *before]):
        old, new = before.get(key), now.get(key)
        if key == "sampler" and isinstance(old, Mapping) and "precision" in (new or {}):
            old = {"precision": "fp32", **old}  # records from before there was a choice lack it
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = next(k for k in dict.fromkeys([*new, *old]) if old.get(k) != new.get(k))
            key, old, new = f"{key}: {inner}", old.get(inner), new.get(inner)
        return f"{key} was {_said(old)}, now it is {_said(new)}"
    return None


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = "not given" if value is None else json.dumps(value).strip('"')
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None if there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / NAME
    try:
        tree = parse_json(read_file(path, _MAX_BYTES), _MAX_VALUES)
        strangers = {str(name): (int(a), int(b)) for name, (a, b) in tree["strangers"].items()}
        return Record(dict(tree["request"]), strangers)
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): remove it to take all images there for "
            "images of this request"
        ) from None


def write_record(folder: Path, record: Record) -> None:
    """Write a record into a folder, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    tree = {"request": record.request, "strangers": record.strangers}
    with replacing(folder / NAME) as temporary:
        temporary.write_text(json.dumps(tree) + os.linesep, encoding="utf-8")
