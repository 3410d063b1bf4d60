"""Which keys of a run's config may change when the run goes on.

There are three kinds. Free keys decide when to stop or what is written. Others change what is
learned, and need --allow-config-change. A few cannot act on a run that has begun, and are refused.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torch_utils.errors import UserError
from training.config import PreviewConfig, ResolvedConfig, TrainingConfig
from training.evaluate_config import EvaluateConfig
from training.recipes import leaves

FREE_KEYS = (
    {
        f"run.{key}"
        for key in (
            "duration", "tick", "snap", "dump", "keep_states", "keep_snapshots", "desc", "device",
            "data_device", "max_bad_steps", "remat", "bench", "compile",
        )
    }
    | {f"preview.{key}" for key in PreviewConfig.model_fields}
    | {f"evaluate.{key}" for key in EvaluateConfig.model_fields}
)  # fmt: skip

# keys that decide how the data is read; the data's own key depends on them
_OF_READING = {"data.cond", "data.max_size", "data.subset_seed"}

# keys that act only at the start of a run, or whose effect lies in its states
_FIXED_AT_START = {
    "ema.starts": "it acts on the first step alone",
    "ema.posthoc": "its averages begin with the first step",
    "network.resample_filter": "its taps are among the state's tensors",
}


class Misfit(UserError):
    """A training state that does not fit a config."""


def differences(old: TrainingConfig, new: TrainingConfig) -> list[str]:
    """How a config differs from a run's, apart from free keys.

    With a cosine decay the duration is not free, because the learning rate depends on it. Data of
    the same content is the same, wherever it lies.

    Args:
        old: as the run directory has it.
        new: resolved, like the run's.

    Returns:
        Lines like `optimizer.lr: 0.001 -> 0.002`.
    """
    before, after = _flat(old), _flat(new)
    free = FREE_KEYS - ({"run.duration"} if new.optimizer.decay == "cosine" else set())
    if old.data.key is not None and new.data.key is not None:
        free |= {"data.path"}
    changed = [
        key
        for key in sorted(before.keys() | after.keys())
        if key not in free and before.get(key) != after.get(key)
    ]
    lines = []
    for key in changed:
        if key != "data.key":
            lines.append(f"{key}: {before.get(key)} -> {after.get(key)}")
        elif old.data.key is not None and not _OF_READING & {*changed}:
            lines.append(f"data: {_changed_data(old.data.key, str(new.data.key))}")
    return lines


def _changed_data(old: str, new: str) -> str:
    """What differs between two keys of data, in words; see `training.data`."""
    parts = zip(old.split("/"), new.split("/"), strict=False)
    names = ("images", "size", "label kind", "pixels or file names", "labels")
    words = []
    for name, (before, after) in zip(names, parts, strict=False):
        if before != after:
            is_readable = name in names[:3]
            words.append(f"{name} {before} -> {after}" if is_readable else f"other {name}")
    return ", ".join(words) or "other content"


def refuse_unfit(
    old: TrainingConfig,
    new: ResolvedConfig,
    state: dict[str, Any],
    ours: Mapping[str, Tensor],
) -> None:
    """Refuse a state that does not fit a config, before anything is overwritten.

    Args:
        old: the run's config.
        new: the config to go on with.
        state: of `training.state`.
        ours: the tensors of the config's network; only their names and shapes count.

    Raises:
        Misfit: names the keys or tensors at fault.
    """
    before, after = _flat(old), _flat(new)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    for key, reason in _FIXED_AT_START.items():
        if key in changed and state["trainer"]["updates"]:
            raise Misfit(f"{key} cannot change in a run that has begun: {reason}")
    if bool(state["trainer"]["uncertainty"]) != new.loss.uncertainty:
        raise Misfit(
            f"loss.uncertainty cannot change to {str(new.loss.uncertainty).lower()}: the run's "
            "state has the weights of the other choice; start a new run, e.g. with --transfer"
        )
    expected, found = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for tensors in (ours, state["trainer"]["denoiser"])
    )
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        first = wrong[0]
        raise Misfit(
            f"the state does not fit this network in {len(wrong)} tensors, first {first} "
            f"({found.get(first, 'absent')}, here {expected.get(first, 'absent')}); changed: "
            f"{'; '.join(differences(old, new)) or 'nothing in the config'}: start a new run, e.g. "
            "with --transfer"
        )


def _flat(config: TrainingConfig) -> dict[str, Any]:
    """A config as one flat dict of dotted keys, as files hold it."""
    return {".".join(path): value for path, value in leaves(config.model_dump(mode="json"))}
