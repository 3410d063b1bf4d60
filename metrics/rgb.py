"""Images for detectors that were trained on colour: gray becomes red, green and blue alike."""

from torch import Tensor

from torch_utils.errors import UserError


def as_rgb(images: Tensor, detector: str) -> Tensor:
    """Repeat gray to three channels.

    Args:
        images: [N, C, H, W].
        detector: the name of the detector, for the message.

    Returns:
        [N, 3, H, W]; a view.

    Raises:
        UserError: C is neither 1 nor 3.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UserError(
            f"detector {detector!r} takes gray or RGB images, these have {channels} channels: "
            "use --detector=pixels, or convert them"
        )
    return images.expand(-1, 3, -1, -1)
