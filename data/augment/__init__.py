"""Augmentation: random changes of training images, and labels that tell the network about them.

Karras et al. 2020 ("ADA"), Appendix B, and Karras et al. 2022 ("EDM"), Appendix F.2. `draw` decides
on the host what happens to each image, from a generator on the CPU. So the host knows which images
are left alone, and `apply` works only on the others, without asking the device which they are. The
few numbers an image go to the device by one asynchronous copy each.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from data.augment.color import COLORS, recolor
from data.augment.geometry import AFFINE, WHOLE_PIXELS, largest_shift, move_pixels, resample
from torch_utils.devices import upload
from torch_utils.errors import UserError, unknown_name

Params = dict[str, Tensor]
ALWAYS = 1e8  # multiplier of an augmentation that acts at every p above 0
ANISO_ROTATED = 0.5  # probability that a stretch has an angle


@dataclass(frozen=True)
class Augmentations:
    """Which augmentations there are, and how often.

    Attributes:
        p: overall probability.
        multipliers: name of `AUGMENTATIONS` -> m; it acts with probability min(1, m p).

    Raises:
        UserError: a name is unknown, the probability is not in [0, 1], or a multiplier is negative.
    """

    p: float
    multipliers: Mapping[str, float]

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise UserError(f"augmentation probability is {self.p}: give a number from 0 to 1")
        for name, multiplier in self.multipliers.items():
            if name not in AUGMENTATIONS:
                raise unknown_name("augmentation", name, AUGMENTATIONS)
            if not multiplier >= 0:
                raise UserError(f"multiplier of {name} is {multiplier}: it must not be negative")

    @property
    def names(self) -> list[str]:
        """The augmentations that can act, in the order in which they do."""
        return [name for name in AUGMENTATIONS if self.p * self.multipliers.get(name, 0) > 0]


def edm(p: float) -> Augmentations:
    """The set of EDM's train.py: mirroring half of all images, five others with probability p."""
    others = ("yflip", "scale", "rotate_frac", "aniso", "translate_frac")
    return Augmentations(p, {"xflip": ALWAYS, **dict.fromkeys(others, 1.0)})


def flips() -> Augmentations:
    """Mirror half of all images, for models that take no augmentation labels."""
    return Augmentations(1.0, {"xflip": 1.0})


def _coin(num: int, generator: Generator) -> Tensor:
    return torch.randint(2, [num], generator=generator)


def _quarter_turns(num: int, generator: Generator) -> Tensor:
    return torch.randint(4, [num], generator=generator)


def _uniform(num: int, generator: Generator) -> Tensor:
    """In [-1, 1), for x and y."""
    return 2 * torch.rand([num, 2], generator=generator, dtype=torch.float64) - 1


def _angle(num: int, generator: Generator) -> Tensor:
    return math.pi * (2 * torch.rand([num], generator=generator, dtype=torch.float64) - 1)


def _normal(num: int, generator: Generator) -> Tensor:
    return torch.randn([num], generator=generator, dtype=torch.float64)


def _normals(num: int, generator: Generator) -> Tensor:
    """For x and y."""
    return torch.randn([num, 2], generator=generator, dtype=torch.float64)


def _itself(params: Mapping[str, Tensor], name: str) -> list[Tensor]:
    return [params[name]]


def _turned(params: Mapping[str, Tensor], name: str) -> list[Tensor]:
    return [params[name].cos() - 1, params[name].sin()]


def _pair(params: Mapping[str, Tensor], name: str) -> list[Tensor]:
    return [*params[name].unbind(1)]


def _half_turns(params: Mapping[str, Tensor], name: str) -> list[Tensor]:
    turns = params[name]
    return [(turns == 1) | (turns == 2), (turns == 2) | (turns == 3)]


def _stretched(params: Mapping[str, Tensor], name: str) -> list[Tensor]:
    w, angle = params[name], params["aniso_angle"]
    return [w * angle.cos(), w * angle.sin()]


@dataclass(frozen=True)
class Augmentation:
    """One augmentation.

    Attributes:
        variate: draws it, [N] or [N, 2]. A variate of 0 changes nothing.
        label: its label entries, each [N].
        width: how many these are.
    """

    variate: Callable[[int, Generator], Tensor]
    label: Callable[[Mapping[str, Tensor], str], list[Tensor]] = _itself
    width: int = 1


# in the order in which they act and in which the labels stand
AUGMENTATIONS: dict[str, Augmentation] = {
    "xflip": Augmentation(_coin),
    "yflip": Augmentation(_coin),
    "rotate_int": Augmentation(_quarter_turns, _half_turns, 2),
    "translate_int": Augmentation(_uniform, _pair, 2),
    "scale": Augmentation(_normal),
    "rotate_frac": Augmentation(_angle, _turned, 2),
    "aniso": Augmentation(_normal, _stretched, 2),
    "translate_frac": Augmentation(_normals, _pair, 2),
    "brightness": Augmentation(_normal),
    "contrast": Augmentation(_normal),
    "lumaflip": Augmentation(_coin),
    "hue": Augmentation(_angle, _turned, 2),
    "saturation": Augmentation(_normal),
}
# executed in three passes, each over the images that it changes
STAGES = ((WHOLE_PIXELS, move_pixels), (AFFINE, resample), (COLORS, recolor))


def label_dim(settings: Augmentations) -> int:
    """Width of the labels that `apply` gives: 9 for `edm`."""
    return sum(AUGMENTATIONS[name].width for name in settings.names)


def draw(generator: Generator, num: int, settings: Augmentations) -> Params:
    """Decide what happens to each image.

    Args:
        generator: on the CPU.
        num: number of images N.
        settings: the augmentations.

    Returns:
        name -> variate, [N] or (x, y) [N, 2], on the CPU, 0 where its gate has not passed; angles
        in radians; `aniso_angle` beside `aniso`. Names that cannot act are absent.
    """
    assert generator.device.type == "cpu", "the host has to know which images are augmented"

    def gated(variate: Tensor, probability: float) -> Tensor:
        passes = torch.rand([num], generator=generator, dtype=torch.float64) < probability
        return variate * passes.view(num, *[1] * (variate.ndim - 1))

    params: Params = {}
    for name in settings.names:
        probability = settings.multipliers[name] * settings.p
        variate = AUGMENTATIONS[name].variate(num, generator)
        angle = _angle(num, generator) if name == "aniso" else None
        params[name] = gated(variate, probability)
        if angle is not None:
            params["aniso_angle"] = gated(angle, ANISO_ROTATED)
    return params


def labels_of(params: Mapping[str, Tensor], height: int, width: int) -> Tensor:
    """The augmentation labels, float32 [N, label_dim] on the host; zeros if nothing was changed.

    Args:
        params: of `draw`, at least one.
        height, width: of the images.
    """
    told = dict(params)
    if "translate_int" in told:  # the shift as carried out
        largest = largest_shift(height, width)
        told["translate_int"] = (told["translate_int"] * largest).round() / largest
    columns = [
        entry
        for name, row in AUGMENTATIONS.items()
        if name in told
        for entry in row.label(told, name)
    ]
    return torch.stack([column.to(torch.float32) for column in columns], 1)


def apply(images: Tensor, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Augment images; an image that is left alone is returned bit for bit.

    Args:
        images: float32 [N, C, H, W] on any device.
        params: of `draw` for N images; augmentations that are absent are off.

    Returns:
        The images, and labels [N, label_dim] on the same device.

    Raises:
        UserError: quarter turns were asked for of images that are not square, or changes of colour
            of images that have neither 1 nor 3 channels.
    """
    num, channels, height, width = images.shape
    if not params:
        return images, images.new_zeros(num, 0)
    if "rotate_int" in params and height != width:
        raise UserError(f"rotate_int needs square images, these are {height}x{width}")
    if params.keys() & {*COLORS} and channels not in (1, 3):
        raise UserError(f"changes of colour need images of 1 or 3 channels, these have {channels}")
    for names, change in STAGES:
        acts = torch.zeros(num, dtype=torch.bool)
        for name in params.keys() & {*names}:
            acts |= params[name].view(num, -1).any(1)
        chosen = acts.nonzero()[:, 0]
        if len(chosen):
            where = upload(chosen, images.device)
            subset = {name: variate[chosen] for name, variate in params.items()}
            changed = change(images.index_select(0, where), subset)
            images = images.index_copy(0, where, changed)
    return images, upload(labels_of(params, height, width), images.device)
