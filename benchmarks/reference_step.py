"""A training step written plainly, the yardstick of `bench_training.py`; nothing of ours is used.

What the published implementation does in a step, in the order in which it does it: images decoded
and handed over by one worker process, EDM's loss in float32, gradients made finite one by one, Adam
as PyTorch does it by default (one parameter at a time on a CPU, many at once on a GPU), the average
of the weights one parameter at a time. Karras et al. 2022 ("EDM"), appendix F.

As a program it takes steps when it is told to, so that it has a process of its own: what our
programs choose for threads and memory is not chosen for it.
"""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterator

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.reference_network import SIGMA_DATA, State, reference_denoiser

P_MEAN, P_STD = -1.2, 1.2  # of ln(sigma)


class ZippedImages(Dataset[tuple[np.ndarray, np.ndarray]]):
    """The images of a data set's zip, decoded when they are first asked for, and then kept."""

    def __init__(self, path: str, *, use_labels: bool) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            labels = json.loads(archive.read("dataset.json"))["labels"] if use_labels else None
        self.labels = None if labels is None else dict(labels)
        self.label_dim = 0 if labels is None else 1 + max(label for _, label in labels)
        self._archive: zipfile.ZipFile | None = None  # of the process that reads
        self._decoded: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self._decoded:
            self._archive = self._archive or zipfile.ZipFile(self.path)
            picture = PIL.Image.open(io.BytesIO(self._archive.read(self.names[index])))
            pixels = np.array(picture)
            self._decoded[index] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        label = np.zeros(self.label_dim, dtype=np.float32)
        if self.labels is not None:
            label[self.labels[self.names[index]]] = 1
        return self._decoded[index].copy(), label


class _Shuffled(Sampler[int]):
    """Indices without end: a shuffled order that goes on being shuffled behind the reader."""

    def __init__(self, num: int, seed: int) -> None:
        self.num, self.seed = num, seed

    def __iter__(self) -> Iterator[int]:
        random = np.random.RandomState(self.seed)
        order = np.arange(self.num)
        random.shuffle(order)
        window, position = int(np.rint(self.num * 0.5)), 0
        while True:
            here = position % self.num
            yield int(order[here])
            if window >= 2:
                other = (here - random.randint(window)) % self.num
                order[here], order[other] = order[other], order[here]
            position += 1


def loaded(
    dataset: ZippedImages, batch: int, seed: int = 0, *, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, uint8 [N, C, H, W] and labels [N, label_dim], by one worker."""
    sampler = _Shuffled(len(dataset), seed)
    return iter(
        DataLoader(
            dataset,
            batch_size=batch,
            sampler=sampler,
            num_workers=1,
            prefetch_factor=2,
            pin_memory=pin,
        )
    )


def reference_loss(
    state: State, y: Tensor, labels: Tensor | None, variate: Tensor, noise: Tensor, dropout: float
) -> Tensor:
    """EDM's loss of every pixel, [N, C, H, W].

    Args:
        state: the network's.
        y: clean images in [-1, 1], [N, C, H, W].
        labels: [N, label_dim], or None.
        variate: unit normals that become noise levels, [N, 1, 1, 1].
        noise: unit normals, [N, C, H, W].
        dropout: probability.
    """
    sigma = (variate * P_STD + P_MEAN).exp()
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    denoised = reference_denoiser(state, y + noise * sigma, sigma, labels, dropout=dropout)
    loss: Tensor = weight * ((denoised - y) ** 2)
    return loss


class ReferenceStep:
    """A network under training, step by step.

    Attributes:
        parameters: the network's, by name, trained.
        average: of the weights, by name.
        moments: count, sum and sum of squares of the loss so far, float64.
        seen: images seen so far.
    """

    def __init__(
        self,
        state: State,
        *,
        lr: float = 1e-3,
        lr_rampup: float = 10e6,
        ema_halflife: float = 500e3,
        ema_rampup_ratio: float = 0.05,
        dropout: float = 0.0,
    ) -> None:
        """Copy the weights of `state`; buffers, which are constants, are used as they are."""
        self.buffers = {n: v for n, v in state.items() if n.endswith((".resample_filter", "freqs"))}
        self.parameters = {
            name: value.detach().clone().requires_grad_()
            for name, value in state.items()
            if name not in self.buffers
        }
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8
        )
        self.state: State = {n: self.parameters.get(n, v) for n, v in state.items()}
        self.lr, self.lr_rampup = lr, lr_rampup
        self.ema_halflife, self.ema_rampup_ratio = ema_halflife, ema_rampup_ratio
        self.dropout = dropout
        self.seen = 0
        self.moments = torch.zeros(3, dtype=torch.float64)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one step on uint8 images [N, C, H, W] and their labels [N, label_dim]."""
        device = next(iter(self.parameters.values())).device
        self.optimizer.zero_grad(set_to_none=True)
        y = images.to(device).to(torch.float32) / 127.5 - 1
        given = labels.to(device) if labels.shape[1] else None
        variate = torch.randn([len(y), 1, 1, 1], device=device)
        noise = torch.randn_like(y)
        self.gradients(y, given, variate, noise)
        self.update(len(y))

    def gradients(self, y: Tensor, labels: Tensor | None, variate: Tensor, noise: Tensor) -> Tensor:
        """Add the gradients of the mean loss of a batch; that of every pixel is returned."""
        loss = reference_loss(self.state, y, labels, variate, noise, self.dropout)
        values = loss.detach().flatten().to(torch.float32)
        sums = torch.stack([torch.ones_like(values).sum(), values.sum(), values.square().sum()])
        self.moments = self.moments.to(sums.device) + sums.to(torch.float64)
        loss.sum().mul(1 / len(y)).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def update(self, batch: int) -> None:
        """From gradients to weights to their average."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(self.seen / max(self.lr_rampup, 1e-8), 1)
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                grad = parameter.grad
                torch.nan_to_num(grad, nan=0, posinf=1e5, neginf=-1e5, out=grad)
        self.optimizer.step()
        halflife = min(self.ema_halflife, self.seen * self.ema_rampup_ratio)
        beta = 0.5 ** (batch / max(halflife, 1e-8))
        with torch.no_grad():
            for name, average in self.average.items():
                average.copy_(self.parameters[name].detach().lerp(average, beta))
        self.seen += batch


def main() -> None:
    """Take a step for each line of the standard input, and say when it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a zip of images")
    parser.add_argument("--state", required=True, help="the network's state dict")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--dropout", type=float, required=True)
    parser.add_argument("--device", required=True)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the published default
    state = torch.load(options.state, map_location=device, weights_only=True)
    plain = ReferenceStep(state, dropout=options.dropout)
    images = ZippedImages(options.data, use_labels=False)
    batches = loaded(images, options.batch, pin=device.type == "cuda")
    for _ in sys.stdin:
        plain.step(*next(batches))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        print("done", flush=True)


if __name__ == "__main__":
    main()
