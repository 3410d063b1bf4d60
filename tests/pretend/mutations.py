"""More of the table of `tests.mutants`: changes that only a GPU would show."""

from tests.mutations import Mutant


def _check(name: str) -> str:
    """One check of tests/pretend/checks.py."""
    return f"test_pretended_gpu.py::test_on_a_pretended_gpu[{name}]"


def _counts(recipe: str) -> str:
    """The counts of one recipe."""
    return (
        "test_pretended_gpu.py::"
        f"test_a_published_recipe_takes_the_launches_and_the_memory_on_record[{recipe}]"
    )


_STEP = _check("a_step_does_not_wait")
_STATE = _check("a_step_does_not_wait_for_a_state")
_SAMPLING = _check("sampling_does_not_wait")
_LAYOUT = _check("layouts_stay")
_ABANDONED = _check("an_abandoned_capture_is_ended_once_and_on_its_device")
_LEFT = _check("what_fused_kernels_cannot_do_is_left_to_pytorch")

# file -> (test, text, what takes its place)
_CHANGES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "samplers/float_images.py": (
        (_check("the_door_is_that_of_the_cpu"), "not_finite(images).cpu()", "not_finite(images)"),
    ),
    "metrics/inception.py": (
        (
            _check("inception_neither_rounds_nor_waits"),
            "with numerics(), torch.auto",
            "with torch.auto",
        ),
        (
            _check("inception_neither_rounds_nor_waits"),
            "low = place.long()",
            "low = place.cpu().long().to(place.device)",
        ),
    ),
    "metrics/statistics.py": (
        (
            _check("sums_of_features_do_not_wait"),
            "self.total += values.sum(0)",
            "self.total += values.sum(0).cpu().to(values.device)",
        ),
    ),
    "metrics/manifold.py": (
        (
            _check("sets_of_features_are_compared_as_on_the_cpu"),
            ", device=self._centre.device)",
            ")",
        ),
    ),
    "torch_utils/devices.py": (
        (_STEP, 'or tensor.device.type != "cpu":', ":"),
        (_STEP, "tensor.pin_memory().to(device", "tensor.to(device"),
        (_STEP, "pin_memory().to(device, non_blocking=True)", "pin_memory().to(device)"),
    ),
    "torch_utils/distributed.py": (
        (_check("a_process_computes_on_its_own_device"), "torch.cuda.set_device(device)", "pass"),
        (_check("float32_is_not_rounded"), "matmul.allow_tf32 = False", "matmul.allow_tf32 = True"),
        (_check("float32_is_not_rounded"), "cudnn.allow_tf32 = False", "cudnn.allow_tf32 = True"),
    ),
    "training/data.py": (
        (_STEP, "picked.to(torch.float32)", "picked.cpu().to(device, torch.float32)"),
        (
            _check("data_are_uploaded_once"),
            "if not self.is_resident(device, where):",
            "if True:",
        ),
        (_check("data_are_uploaded_once"), "images=self.images.to(device)", "images=self.images"),
    ),
    "torch_utils/memory.py": (
        (
            _check("what_pytorch_keeps_is_free"),
            "mem_get_info(device)[0] + kept",
            "mem_get_info(device)[0]",
        ),
    ),
    "training/source.py": (
        (_STEP, "torch.Generator(device).manual_seed", "torch.Generator().manual_seed"),
    ),
    "training/trainer.py": (
        (_STEP, "self.seen += batch", "self.seen += batch if loss.item() else batch"),
        (
            _counts("cifar10-uncond-ddpmpp"),
            "zero_grad(set_to_none=True)",
            "zero_grad(set_to_none=False)",
        ),
    ),
    "training/update.py": (
        (_STEP, "= is_bad.float()", "= torch.tensor(float(bool(is_bad)), device=is_bad.device)"),
    ),
    "training/writer.py": (
        (_STATE, "download(tree.detach())", "tree.detach().cpu()"),
        (_STATE, "if arrived is not None:", "if False:"),
    ),
    "training/precision.py": (
        (_STEP, 'pin_memory=device.type == "cuda"', "pin_memory=False"),
        (
            _STEP,
            "self._seen.copy_(self.in_a_row, non_blocking=True)",
            "self._seen.copy_(self.in_a_row)",
        ),
    ),
    "torch_utils/precision.py": (
        (_counts("imagenet64-adm"), "torch.autocast(device.type,", 'torch.autocast("cpu",'),
    ),
    "training/ema.py": (
        (
            _counts("cifar10-uncond-ddpmpp"),
            "torch._foreach_lerp_([*average], [*weights], 1.0 - beta)",
            "[a.lerp_(b, 1.0 - beta) for a, b in zip(average, weights)]",
        ),
    ),
    "losses/objective.py": (
        (
            _STEP,
            "noise = torch.randn(batch.images.shape, generator=micro, device=micro.device)",
            "noise = torch.randn(batch.images.shape).to(micro.device)",
        ),
    ),
    "losses/consistency.py": (
        (
            _STEP,
            "window * (self.epsilon_max - self.epsilon_min)",
            "window * torch.tensor(self.epsilon_max - self.epsilon_min).to(window.device)",
        ),
    ),
    "losses/sequence_aware.py": (
        (
            _STEP,
            "self.table.at(index[1:].clamp(min=0)), least)",
            "self.table.at(index[1:].clamp(min=0)), torch.tensor(least).to(index.device))",
        ),
    ),
    "diffusion/graphs.py": (
        (_check("a_batch_is_replayed"), "graph.replay()", "pass"),
        (
            _check("graphs_leave_no_memory"),
            "if self._is_used:",
            "if False:",
        ),
        (
            _check("large_batches_are_not_captured"),
            "len(x) * height * width <= MAX_PIXELS",
            "len(x) > 0",
        ),
        (
            _check("a_capture_without_memory_is_tried_once_more"),
            "contextlib.suppress(torch.OutOfMemoryError)",
            "contextlib.suppress(KeyError)",
        ),
        (
            _check("what_cannot_be_captured_is_called"),
            "except RuntimeError as",
            "except OSError as",
        ),
        (
            _check("a_failed_capture_is_over_for_the_allocator"),
            "end_abandoned(self._device, self._pool)",
            "pass",
        ),
        (
            _check("sampling_goes_on_where_the_cache_cannot_be_emptied"),
            "                _empty_cache()",
            "                torch.cuda.empty_cache()",
        ),
    ),
    "torch_utils/failed_captures.py": (
        (_ABANDONED, '("_cuda_endAllocateToPool", "_cuda', '("_cuda_endAllocatePool", "_cuda'),
        (_ABANDONED, "if end is None:", "if False:"),
        (
            _ABANDONED,
            "torch.cuda.current_device() if device.index is None",
            "0 if device.index is None",
        ),
        (_ABANDONED, "if device.index is None else device.index", ""),
        (_ABANDONED, "end(index, pool)", "raise RuntimeError"),
        (_ABANDONED, "except RuntimeError:", "except KeyError:"),
        (_ABANDONED, "return  # the allocator knew", "pass"),
        (_ABANDONED, "torch._C._cuda_releasePool(index, pool)", "pass"),
        (_ABANDONED, "default_generators[index]", "default_generators[1 - index]"),
        (_ABANDONED, "generator.graphsafe_set_state(generator.clone_state())", "pass"),
        (_ABANDONED, "generator.clone_state()", "torch.Generator(generator.device)"),
    ),
    "diffusion/tables.py": (
        (_STEP, "if like.device not in self._log_levels:", "if like.is_cuda:"),
    ),
    "diffusion/preconditioning.py": (
        (
            _check("a_denoiser_call_can_be_captured"),
            "torch.full([1, 1, 1, 1], sigma,",
            "torch.tensor([[[[sigma]]]],",
        ),
    ),
    "samplers/outputs.py": (
        (
            _check("only_writers_wait_for_images"),
            "facts.append(Download(is_lost,",
            "facts.append(Download(is_lost.cpu(),",
        ),
    ),
    "samplers/starts.py": (
        (
            _SAMPLING,
            "upload(self.normal(x.shape[1:], torch.float64).to(x.dtype), x.device)",
            "self.normal(x.shape[1:], torch.float64).to(x.device, x.dtype)",
        ),
        (
            _SAMPLING,
            "upload(random.normal(shape, torch.float32), device)",
            "random.normal(shape, torch.float32).to(device)",
        ),
    ),
    "networks/layers.py": (
        (
            _SAMPLING,
            "torch.arange(self.num_freqs, dtype=x.dtype, device=x.device)",
            "torch.arange(self.num_freqs, dtype=x.dtype).to(x.device)",
        ),
        (_counts("imagenet64-adm"), "device_type = x.device.type", 'device_type = "cpu"'),
        (
            _counts("cifar10-uncond-ddpmpp"),
            "return self._convolved(x, None)",
            "return self._convolved(x, 0 * self.bias)",
        ),
    ),
    "networks/norms.py": ((_LAYOUT, "return x.is_cuda and is_channels_last(x)", "return False"),),
    "networks/fused.py": (
        (_LEFT, "if torch._C._are_functorch_transforms_active():", "if False:"),
        (_LEFT, "or has_tangent(x):", "or False:"),
        (_LEFT, "or not x.is_contiguous()", "or False"),
    ),
    "networks/blocks.py": (
        (
            _LAYOUT,
            "attended.reshape(n, -1, height, width).contiguous()",
            "attended.reshape(n, -1, height, width)",
        ),
    ),
}

DEVICE_MUTANTS = [
    Mutant(file, original, replacement, (f"tests/{test}",))
    for file, changes in _CHANGES.items()
    for test, original, replacement in changes
]
