"""What every importer gives: a foreign model, complete in our terms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from models.build import build
from models.snapshot import SnapshotInfo


@dataclass(frozen=True)
class ForeignModel:
    """A foreign checkpoint, enough to sample it or to save it as a snapshot.

    Attributes:
        family: what made it, e.g. edm, sa-dpm, v-diffusion, ddpm-xyf or diffusers.
        info: model config, labels, progress, average, and `sampling`: what a user of that system
            expects.
        state_dict: the weights under the names of our denoiser, float32.
        notes: lines about what was read in a way that one might not expect.
    """

    family: str
    info: SnapshotInfo
    state_dict: dict[str, Tensor]
    notes: tuple[str, ...] = ()

    def denoiser(self, device: torch.device | str = "cpu") -> Denoiser:
        """The model in evaluation mode, with its weights, on a device."""
        denoiser = build(self.info.model, empty=True)
        denoiser.load_state_dict(self.state_dict, assign=True)
        return denoiser.eval().requires_grad_(False).to(device)
