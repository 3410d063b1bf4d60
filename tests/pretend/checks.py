"""What is asserted on a pretended GPU: `python -m tests.pretend.checks NAME...`.

One process serves many checks, as importing PyTorch takes longer than most of them. Each prints
one line of JSON, [name, error or null].
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import driftless
import networks
from diffusion.preconditioning import PRESETS
from metrics import detectors
from metrics.kernel import kernel_distance
from metrics.manifold import precision_recall
from metrics.statistics import FeatureStatistics
from models.snapshot import SnapshotInfo, save_snapshot
from networks.norms import GroupNorm
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from tests.inception import save_weights
from tests.pretend.cases import SAMPLING, STEPS, Sampling, model, model_config, sampling, training
from tests.pretend.computing import run
from tests.pretend.events import WAITS, Events
from tests.pretend.fused_checks import (
    TRITON,
    decided,
    fused_kernels_are_tried_before_they_compute,
    launches_are_repeated_and_else_tritons,
    what_fused_kernels_cannot_do_is_left_to_pytorch,
)
from tests.pretend.graph_checks import (
    a_batch_is_replayed,
    a_capture_without_memory_is_tried_once_more,
    a_failed_capture_is_over_for_the_allocator,
    an_abandoned_capture_is_ended_once_and_on_its_device,
    graphs_leave_no_memory,
    large_batches_are_not_captured,
    only_writers_wait_for_images,
    sampling_goes_on_where_the_cache_cannot_be_emptied,
    what_cannot_be_captured_is_called,
)
from tests.training.runs import SlowFolder
from torch_utils.devices import upload
from torch_utils.distributed import world
from torch_utils.memory import available_bytes
from training.data import TrainingData
from training.state import newest_state
from training.writer import StateWriter

DEVICE = "cuda:0"
LITTLE = 1 << 16  # bytes: indices and augmentation parameters, but no images


def a_step_does_not_wait() -> None:
    """One number comes back a step, the counter of bad steps, and nobody waits for it."""
    for name, overrides in STEPS.items():
        trainer, step = training(DEVICE, *overrides)
        step(), step()
        with Events() as events:
            step()
            trainer.guard.recent_bad_steps()
        assert not events.of(*WAITS), (name, str(events))
        assert events.counts["d2h"] == 1, (name, str(events))


def a_step_does_not_wait_for_a_state() -> None:
    """The copies of a save join the device's queue; only the thread that writes waits for them."""
    trainer, step = training(DEVICE)
    step(), step()
    state = {"trainer": trainer.state()}
    expected = {name: tensor.cpu() for name, tensor in trainer.average.state_dict().items()}
    num = sum(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(state))
    with tempfile.TemporaryDirectory() as folder:
        slow = SlowFolder(Path(folder))
        with StateWriter(slow, None, trainer.world.device) as writer:
            with Events() as events:
                writer.begin(state)
                step()
                assert slow.asked.wait(60)
            assert num > 10
            assert events.counts["d2h"] == num + 1, (num, str(events))  # a step has one of its own
            waits = {line.partition(" ")[2] for *_, line in events.of(*WAITS)}
            assert waits == {"arrived.synchronize()"}, str(events)
            slow.answers.set()
        _, found, _ = newest_state(Path(folder))
    assert found is not None
    for name, tensor in found["trainer"]["average"].items():
        assert torch.equal(tensor, expected[name]), name


def a_step_is_that_of_the_cpu() -> None:
    """Losses of two steps agree, so the update of the weights between them does."""
    for name, overrides in STEPS.items():
        options = ("optimizer.warmup=0img", "run.batch=16", *overrides)
        expected, found = _losses("cpu", *options), run(partial(_losses, DEVICE, *options))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0, msg=name)


def a_step_by_fused_kernels_is_that_of_the_cpu() -> None:
    """So it is with norms and sums by the operations of ours, whose kernels are launched."""
    with decided(True):
        for name, overrides in STEPS.items():
            options = ("optimizer.warmup=0img", "run.batch=16", *overrides)
            expected = _losses("cpu", *options)
            with Events(names=True) as events:
                found = run(partial(_losses, DEVICE, *options))
            assert events.kernels[TRITON] > 10, name
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=0, msg=name)


def sampling_by_fused_kernels_is_that_of_the_cpu() -> None:
    """So are images, also guided, and where a second derivative or a graph is made."""
    with decided(True):
        sampling_is_that_of_the_cpu()
        a_denoiser_call_can_be_captured()


def _losses(device: str, *overrides: str) -> Tensor:
    _, step = training(device, *overrides)
    return torch.tensor([float(step()), float(step())])


def data_are_uploaded_once() -> None:
    """Data that fit lie on the device: a step uploads indices. Else it uploads its images."""
    for where, is_little in (("auto", True), ("cpu", False)):
        _, step = training(
            DEVICE, f"run.data_device={where}", "data.max_size=1000", "run.batch=1024"
        )
        step()
        with Events() as events:
            step()
        found = events.bytes["h2d"] + events.bytes["h2d_pageable"]
        assert (found < LITTLE) == is_little, (where, found, str(events))


def what_pytorch_keeps_is_free() -> None:
    """A second run in a process finds as much free memory as the first one, and uses it alike."""
    device, size = torch.device(DEVICE), 64 << 30
    images = torch.empty(1, 1, 1, 16 << 30, dtype=torch.uint8, device="meta")
    data = TrainingData(images, None, "large")
    before = available_bytes(device)
    torch.empty(size, dtype=torch.uint8, device=device)
    assert torch.cuda.memory_reserved() >= size
    assert available_bytes(device) == before
    assert data.is_resident(device, "auto")
    held = torch.empty(size, dtype=torch.uint8, device=device)
    assert before is not None
    assert available_bytes(device) == before - size
    assert not data.is_resident(device, "auto")
    del held
    torch.cuda.empty_cache()


def sampling_does_not_wait() -> None:
    """Latents and labels of a batch are uploaded; in the loop nothing is waited for."""
    for case in SAMPLING:
        next_batch = sampling(DEVICE, case)
        next_batch()
        with Events() as events:
            next_batch()
        assert not events.of(*WAITS, "d2h"), (case, str(events))


def sampling_is_that_of_the_cpu() -> None:
    """Images of equal seeds agree; a pretended GPU's generators draw the CPU's numbers."""
    for case in SAMPLING:
        expected, found = _images("cpu", case), run(partial(_images, DEVICE, case))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=str(case))


def _images(device: str, case: Sampling) -> Tensor:
    return sampling(device, case)().cpu()


def the_door_is_that_of_the_cpu() -> None:
    """`import driftless` gives the CPU's images, waits for little, and leaves PyTorch as it was."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_snapshot(
            path,
            model("cpu", label_dim=10).state_dict(),
            SnapshotInfo(model_config(label_dim=10), label_kind="class"),
        )
        torch.cuda.set_device(1)
        try:
            _check_the_door(path)
        finally:
            torch.cuda.set_device(0)


def _check_the_door(path: Path) -> None:
    given, sigma, label = torch.linspace(-1, 1, 3 * 3 * 8 * 16).view(3, 3, 8, 16), 0.5, [3, 1, 4]
    options: dict[str, Any] = {"steps": 6, "S_churn": 8, "progress": False}

    def outputs(device: str) -> list[Tensor]:
        own = driftless.load(path, device)
        images = own.sample(range(3), label=label, **options)
        clean = own.denoise(given.to(device), sigma, label)
        assert images.device == clean.device == torch.device(device)
        return [images.cpu(), clean.cpu()]

    expected = outputs("cpu")
    before = _process()
    found = run(partial(outputs, DEVICE))
    assert _process() == before
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    batches = driftless.load(path, DEVICE).batches(range(9), batch=3, label=3, **options)
    next(batches)
    with Events() as events:
        next(batches)
    # one mask comes back, of what is finite; it is looked at on the host
    assert [events.counts[kind] for kind in (*WAITS, "d2h")] == [1, 0, 1, 0], str(events)


def _process() -> list[object]:
    """Current device and default generators, as text."""
    states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    return [torch.cuda.current_device(), *(str(state.tolist()) for state in states)]


def layouts_stay() -> None:
    """Features keep the memory layout that the input has, also after attention."""
    for name in ("ddpmpp", "ncsnpp", "adm", "ddpm", "vdiff"):
        options = {"model_channels": 64, "channel_mult": [1, 2], "attn_resolutions": [8]}
        net = networks.create(
            name, img_resolution=(16, 16), img_channels=3, num_blocks=1, **options
        ).to(DEVICE)
        for layout in (torch.contiguous_format, torch.channels_last):
            turned, num = _turned(net.to(memory_format=layout), layout)
            assert num > 0
            assert turned == 0, (name, layout, f"{turned} of {num} images of norms are turned")


def _turned(net: nn.Module, layout: torch.memory_format) -> tuple[int, int]:
    """How many images in and out of norms have another layout than the network's, of how many."""
    kept: list[bool] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        kept.extend(image.is_contiguous(memory_format=layout) for image in (given[0], made))

    norms = [module for module in net.modules() if isinstance(module, GroupNorm)]
    hooks = [norm.register_forward_hook(note) for norm in norms]
    with torch.no_grad():
        x = torch.zeros(2, 3, 16, 16, device=DEVICE).to(memory_format=layout)
        net(x, torch.ones(2, device=DEVICE))
    for hook in hooks:
        hook.remove()
    return kept.count(False), len(kept)


def a_denoiser_call_can_be_captured() -> None:
    """A call with a number for sigma becomes a CUDA graph, guided or not."""
    x = torch.zeros(2, 3, 8, 16, device=DEVICE, dtype=torch.float64)
    for preset in PRESETS:
        for guidance in (None, 2.0, {"scale": 2.0, "batch": "split"}):
            denoiser = model(DEVICE, preset, 0 if guidance is None else 10)
            labels = None if guidance is None else torch.zeros(2, 10, device=DEVICE)
            settings = generation_settings({"name": "heun", "steps": 4, "guidance": guidance})
            denoise = sampling_of(settings, denoiser).denoise(labels)
            with torch.inference_mode():
                denoise(x, 1.0)
                with Events() as events, torch.cuda.graph(torch.cuda.CUDAGraph()):
                    denoise(x, 1.0)
            # the capture ends with an error where the host waits
            copies = events.of("h2d", "h2d_pageable", "d2h", "d2h_pageable")
            assert not copies, (preset, guidance, str(events))


def float32_is_not_rounded() -> None:
    """No matrix is multiplied in TF32, and convolutions are told so."""
    os.environ.pop("WORLD_SIZE", None)
    with world("cuda"):
        assert not torch.backends.cudnn.allow_tf32
        denoiser = model(DEVICE)
        with Events() as events:
            denoiser(torch.zeros(2, 3, 8, 16, device=DEVICE), 1.0)
        assert events.counts["library"] > 0
        assert events.counts["tf32"] == 0, str(events)


def inception_neither_rounds_nor_waits() -> None:
    """A detector computes in float32 where the process allows TF32, and what the CPU computes."""
    images = torch.randint(0, 256, [1, 3, 16, 24], dtype=torch.uint8)
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    with tempfile.TemporaryDirectory() as folder:
        weights = str(save_weights(Path(folder, "weights.pth")))
        detector = run(lambda: detectors.load("inception", DEVICE, weights=weights))
        uploaded = run(lambda: upload(images, detector.device))
        expected = detectors.load("inception", weights=weights).extract(images)
    for flag in flags:
        flag.allow_tf32 = True
    try:
        with Events() as events:
            detector.extract(uploaded)
        assert all(flag.allow_tf32 for flag in flags)
    finally:
        for flag in flags:
            flag.allow_tf32 = False
    assert events.counts["library"] > 0
    assert events.counts["tf32"] == 0, str(events)
    assert not events.of(*WAITS), str(events)
    found = run(lambda: detector.extract(uploaded).features.cpu())
    torch.testing.assert_close(found, expected.features, rtol=1e-4, atol=1e-4)


def sums_of_features_do_not_wait() -> None:
    """Statistics grow in float64 where the features are; nobody looks at them meanwhile."""
    features = torch.rand(6, 4)
    uploaded = run(lambda: upload(features, torch.device(DEVICE)))
    statistics = FeatureStatistics(4, DEVICE)
    with Events() as events:
        statistics.update(uploaded)
    assert not events.of(*WAITS, "d2h"), str(events)
    statistics, first = run(lambda: _sums(FeatureStatistics(4, DEVICE), uploaded))
    expected, second = _sums(FeatureStatistics(4), features)
    assert statistics.outer.dtype == expected.outer.dtype == torch.float64
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def _sums(statistics: FeatureStatistics, features: Tensor) -> tuple[FeatureStatistics, Tensor]:
    statistics.update(features)
    return statistics, torch.from_numpy(statistics.finalize().sigma)


def sets_of_features_are_compared_as_on_the_cpu() -> None:
    """Kernel distance, precision and recall, in blocks that do not divide the sets."""
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(num, 6)).astype(np.float32) for num in (40, 30))
    y[:5] = x[:5]

    def compared(device: str) -> Tensor:
        kernel = kernel_distance(x, y, subsets=3, subset_size=20, device=device)
        return torch.tensor([*kernel, *precision_recall(x, y, block=16, device=device)])

    torch.testing.assert_close(run(partial(compared, DEVICE)), compared("cpu"), rtol=1e-9, atol=0)


def a_process_computes_on_its_own_device() -> None:
    """The second process of a machine takes the second device, also where none is named."""
    os.environ["LOCAL_RANK"] = "1"
    try:
        with world("cuda") as here:
            assert here.device == torch.device("cuda", 1)
            assert torch.cuda.current_device() == 1
    finally:
        del os.environ["LOCAL_RANK"]
        torch.cuda.set_device(0)


CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        a_step_does_not_wait,
        a_step_does_not_wait_for_a_state,
        a_step_is_that_of_the_cpu,
        a_step_by_fused_kernels_is_that_of_the_cpu,
        sampling_by_fused_kernels_is_that_of_the_cpu,
        fused_kernels_are_tried_before_they_compute,
        what_fused_kernels_cannot_do_is_left_to_pytorch,
        launches_are_repeated_and_else_tritons,
        data_are_uploaded_once,
        what_pytorch_keeps_is_free,
        sampling_does_not_wait,
        sampling_is_that_of_the_cpu,
        the_door_is_that_of_the_cpu,
        layouts_stay,
        a_denoiser_call_can_be_captured,
        a_batch_is_replayed,
        a_capture_without_memory_is_tried_once_more,
        graphs_leave_no_memory,
        large_batches_are_not_captured,
        only_writers_wait_for_images,
        a_failed_capture_is_over_for_the_allocator,
        an_abandoned_capture_is_ended_once_and_on_its_device,
        sampling_goes_on_where_the_cache_cannot_be_emptied,
        what_cannot_be_captured_is_called,
        float32_is_not_rounded,
        inception_neither_rounds_nor_waits,
        sums_of_features_do_not_wait,
        sets_of_features_are_compared_as_on_the_cpu,
        a_process_computes_on_its_own_device,
    )
}


def main() -> None:
    """Run the named checks."""
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        error = None
        try:
            CHECKS[name]()
        except Exception:
            error = traceback.format_exc()
        print(json.dumps([name, error]), flush=True)


if __name__ == "__main__":
    main()
