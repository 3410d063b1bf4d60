"""A model as plain data: enough to build it, small enough to be stored in a snapshot."""

from typing import Annotated, Any

from pydantic import Field

from diffusion import SCHEDULES
from networks import NETWORKS
from torch_utils.sections import Section, options_of

Schedule = Annotated[str | dict[str, Any], options_of(SCHEDULES)]
Network = Annotated[dict[str, Any], options_of(NETWORKS)]


class PreconditioningConfig(Section):
    """How the network becomes a denoiser.

    Attributes:
        name: preset of diffusion.preconditioning.
        sigma_data: standard deviation of the data in [-1, 1]; None keeps the preset's.
        sigma_min, sigma_max: the noise levels that the model accepts; None keeps the preset's.
        output, input_scale, conditioning, schedule, quantize: parts that replace the preset's; see
            `diffusion.preconditioning.create`.
    """

    name: str = "edm"
    sigma_data: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    output: str | None = None
    input_scale: str | None = None
    conditioning: str | None = None
    schedule: Schedule | None = None
    quantize: bool | None = None


class ModelConfig(Section):
    """Everything needed to build a denoiser.

    Attributes:
        network: {name, options...} of networks.create.
        preconditioning: the wrapper around it.
        img_resolution: (height, width).
        img_channels: number of channels.
        label_dim: width of the label vector; 0 for unconditional.
        augment_dim: width of the augmentation label; 0 without augmentation labels.
    """

    network: Network
    preconditioning: PreconditioningConfig = PreconditioningConfig()
    img_resolution: tuple[int, int]
    img_channels: int = Field(gt=0)
    label_dim: int = Field(default=0, ge=0)
    augment_dim: int = Field(default=0, ge=0)
