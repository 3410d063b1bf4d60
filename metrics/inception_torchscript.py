"""Inception as the TorchScript file of StyleGAN2-ADA, with which published numbers were made.

A TorchScript file is a program. Only the file of the pinned hash is run without being asked for;
another one must be named by --weights, and a line then says what it is. The network is the one of
`metrics.inception`.
"""

import hashlib
import io
import warnings
from typing import Any

import torch
from torch import Tensor

from metrics.detectors import Features, Loaded
from metrics.inception import NUM_CLASSES, NUM_FEATURES
from metrics.rgb import as_rgb
from metrics.weights import WeightsFile, find_weights
from torch_utils.bounded import read_file
from torch_utils.errors import UserError
from torch_utils.notes import warn
from torch_utils.untouched import numerics

NAME = "inception-torchscript"
WEIGHTS = WeightsFile(
    name="inception-2015-12-05.pt",
    addresses=(
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
        "inception-2015-12-05.pt",
    ),
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
_LIMIT = 2**30  # bytes of a file that is read as a whole


def load(device: torch.device, weights: str = "") -> Loaded:
    """Load the detector.

    Args:
        device: where it will compute, in float32 without TF32.
        weights: a TorchScript file of the same interface; empty for the published one, from the
            cache or the network.

    Returns:
        An extractor that gives features and logits of gray or RGB images: [N, 2048] and [N, 1008]
        with the published file.

    Raises:
        UserError: the file cannot be had, or is not TorchScript of that interface.
    """
    path, sha256 = find_weights(NAME, WEIGHTS, weights)
    content = read_file(path, _LIMIT)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} was changed while it was read: start again")
    if sha256 != WEIGHTS.sha256:
        warn(f"--weights={path} is a program of sha256 {sha256}, not the published one: it is run")
    net = _program(content, str(path)).to(device)
    classes = _class_weights(net)
    arguments = _arguments(net)
    wanted = ["return_features"] + ([] if classes is not None else ["no_output_bias"])
    if missing := [name for name in wanted if name not in arguments]:
        raise UserError(f"{path} is not a detector: its forward has no {' and no '.join(missing)}")

    def extract(images: Tensor) -> Features:
        images = as_rgb(images, NAME).contiguous()
        # the optimizer would round differently once it has seen a few batches
        with numerics(), torch.autocast(device.type, enabled=False), _unoptimized():
            features = net(images, return_features=True)
            if classes is not None:
                return Features(features, features @ classes.T)
            probabilities = net(images, no_output_bias=True)
        return Features(features, _logarithm(probabilities))

    return Loaded(extract, sha256)


def _program(content: bytes, name: str) -> Any:
    """The module of a TorchScript file, without gradients."""
    try:
        with warnings.catch_warnings():
            # torch.jit as a whole is called deprecated
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            load_program: Any = torch.jit.load
            net = load_program(io.BytesIO(content), map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{name} is not a TorchScript file: {reason}") from None
    net.eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net


def _arguments(net: Any) -> list[str]:
    """The names of the arguments of its forward."""
    return [argument.name for argument in net.forward.schema.arguments]


def _class_weights(net: Any) -> Tensor | None:
    """Its one tensor that maps features to classes; None if it is not clear which that is."""
    tensors = [*net.parameters(), *net.buffers()]
    found = [tensor for tensor in tensors if tensor.shape == (NUM_CLASSES, NUM_FEATURES)]
    return found[0].float() if len(found) == 1 else None


def _logarithm(probabilities: Tensor) -> Tensor:
    """Logits of which the softmax gives these probabilities."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _unoptimized() -> Any:
    jit: Any = torch.jit
    return jit.optimized_execution(False)
