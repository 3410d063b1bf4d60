"""The average of any length of a finished or running run, made of those that training stored.

Karras et al. 2024, section 3; the mathematics is in `models.posthoc`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from diffusion.denoiser import Denoiser
from models.averaging import Source, check_same_config, weighted_sum
from models.posthoc import POOR_FIT, POWER, Fit, Profile, checked_length, fit, power_average
from models.snapshot import (
    SNAPSHOTS,
    SnapshotInfo,
    is_other_average,
    load_snapshot,
    read_info,
)
from torch_utils.errors import UserError

_NEGLIGIBLE = 1e-9  # coefficients below it are left out, and so is the reading of their files


@dataclass(frozen=True)
class Stored:
    """An average that training stored.

    Attributes:
        path: the snapshot.
        profile: how it weighs the weights of the run.
        info: its description.
    """

    path: Path
    profile: Profile
    info: SnapshotInfo

    def denoiser(self) -> Denoiser:
        """The average, on the CPU."""
        return load_snapshot(self.path)[0]


@dataclass(frozen=True)
class Plan:
    """What an average will be made of.

    Attributes:
        target: the average.
        stored: the averages that it is made of.
        fit: how.
    """

    target: Profile
    stored: Sequence[Stored]
    fit: Fit

    @property
    def info(self) -> SnapshotInfo:
        """The description of the average."""
        made = {"residual": self.fit.residual, "averages": len(self.stored)}
        average = power_average(self.target.length) | {"made_of": made}
        return replace(self.stored[-1].info, ema=average)

    @property
    def summary(self) -> str:
        """A line on what is made, and how well."""
        return (
            f"length {self.target.length:g} at {self.target.images:,} images, of "
            f"{len(self.stored)} stored averages, relative residual of its profile "
            f"{self.fit.residual:.2g}"
        )

    @property
    def caution(self) -> str:
        """A line on a fit that is poor."""
        kept = sorted({entry.profile.length for entry in self.stored})
        return (
            f"the fit is poor: a relative residual of {self.fit.residual:.2g}; good ones are below "
            f"{POOR_FIT:g}. More snapshots help (run.snap, run.keep_snapshots), and a length near "
            f"or between the stored ones, {', '.join(map(str, kept))}"
        )

    def weights(self) -> dict[str, Tensor]:
        """The average, as a state dict. One snapshot is in memory at a time.

        Raises:
            UserError: a snapshot is damaged, or gone.
        """
        return weighted_sum([part for part in self.sources() if abs(part.share) > _NEGLIGIBLE])

    def sources(self) -> list[Source]:
        """The stored averages with their coefficients."""
        pairs = zip(self.stored, self.fit.coefficients, strict=True)
        return [Source(str(e.path), e.info.model, e.denoiser, share) for e, share in pairs]


def stored_averages(folder: str | os.PathLike[str]) -> list[Stored]:
    """The averages that training stored in a run directory, the oldest first.

    Averages that were made of others do not count.

    Raises:
        UserError: it has none, or one is not a snapshot.
    """
    found = []
    for path in sorted(filter(is_other_average, Path(folder).glob(SNAPSHOTS))):
        info = read_info(path)
        average = info.ema or {}
        length = average.get("sigma_rel")
        is_stored = average.get("kind") == POWER and "made_of" not in average and info.images > 0
        if is_stored and isinstance(length, float):
            found.append(Stored(path, Profile(checked_length(length), info.images), info))
    if not found:
        raise UserError(
            f"{folder} has no averages to make others of (network-snapshot-<images>-<length>"
            ".safetensors): they are stored by runs with ema.posthoc=on"
        )
    return found


def plan(folder: str | os.PathLike[str], length: float, images: int | None = None) -> Plan:
    """Find out how an average can be made.

    Args:
        folder: the run directory.
        length: sigma_rel of the average that is wanted.
        images: progress of the run at which it is wanted; None for that of the newest snapshot.

    Raises:
        UserError: the length is none, nothing is stored at that progress, or the stored averages
            are not of one model.
    """
    target_length, every = checked_length(length), stored_averages(folder)
    points = sorted({entry.info.images for entry in every})
    end = points[-1] if images is None else images
    if end not in points:
        near = sorted(sorted(points, key=lambda point: abs(point - end))[:2])
        raise UserError(
            f"{folder} has no averages at {end} images: the nearest are at "
            f"{' and '.join(map(str, near))}"
        )
    target = Profile(target_length, end)
    used = [entry for entry in every if entry.info.images <= end]
    found = Plan(target, used, fit(target, [entry.profile for entry in used]))
    check_same_config(found.sources())
    return found
