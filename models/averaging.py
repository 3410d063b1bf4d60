"""Weighted sums of the weights of models of one config, one model in memory at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from models.compare import config_differences
from models.config import ModelConfig
from torch_utils.errors import UserError
from torch_utils.progress import ModelProgress


@dataclass(frozen=True)
class Source:
    """A model that is a part of a sum.

    Attributes:
        name: for messages.
        model: its config.
        open: reads its weights.
        share: the factor of its weights.
    """

    name: str
    model: ModelConfig
    open: Callable[[], Denoiser]
    share: float


def equal_shares(num: int) -> list[float]:
    """Shares of a plain mean."""
    return [1 / num] * num


def checked_shares(shares: Sequence[float], num: int) -> list[float]:
    """Shares that a user gave, one for each model.

    Raises:
        UserError: another number of them, or their sum is not 1.
    """
    if len(shares) != num:
        raise UserError(f"{len(shares)} weights for {num} models: give one for each")
    if not abs(sum(shares) - 1) <= 1e-6:  # not numbers, too
        raise UserError(f"the weights {', '.join(map(str, shares))} do not add up to 1")
    return [share / sum(shares) for share in shares]


def check_same_config(sources: Sequence[Source]) -> None:
    """Refuse models that are not of one config.

    Raises:
        UserError: names the keys that differ.
    """
    first = sources[0]
    for other in sources[1:]:
        differing = config_differences(first.model, other.model)
        if differing:
            raise UserError(
                f"{other.name} is another model than {first.name}: {'; '.join(differing)}"
            )


def weighted_sum(sources: Sequence[Source]) -> dict[str, Tensor]:
    """Add up weights in float64.

    Args:
        sources: of one config. What is not trained must be equal in all.

    Returns:
        The sum as a state dict of the models, float32 where they are.

    Raises:
        UserError: the models differ in their config or in a tensor that is not trained.
    """
    check_same_config(sources)
    total: dict[str, Tensor] = {}
    constants: dict[str, Tensor] = {}
    with ModelProgress(len(sources), "averaging") as bar:
        for source in sources:
            _add(source, total, constants)
            bar.update()
    for name in [*total]:  # one by one: never two whole copies
        total[name] = total[name].float()
    return total | constants


@torch.no_grad()
def _add(source: Source, total: dict[str, Tensor], constants: dict[str, Tensor]) -> None:
    denoiser = source.open()
    trained = dict(denoiser.named_parameters())
    for name, tensor in denoiser.state_dict().items():
        if name in trained:
            if name not in total:
                total[name] = torch.zeros(tensor.shape, dtype=torch.float64)
            total[name].add_(tensor.double(), alpha=source.share)
        elif not torch.equal(tensor, constants.setdefault(name, tensor)):
            raise UserError(
                f"{source.name}: {name} is not trained, but differs from that of the others"
            )
