"""Mutants of how sampling calls its models: CUDA graphs, and halves of a batch."""

from tests.mutations import Mutant

# (file, tests) -> (original, replacement)
_TABLE: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("diffusion/graphs.py", "tests/samplers/test_graphs.py"): [
        ("found.rows < len(x)", "found.rows != len(x)"),
        ("self.level.fill_(sigma)", "pass"),
        ("zip((self.x, *self.others), (x, *others), strict=True)", "[(self.x, x)]"),
        ("found.made[: len(x)].clone()", "found.made[: len(x)]"),
        ("self._has_failed or not _can_be_captured", "not _can_be_captured"),
        ('            warn_here(f"sampling', '            self._give_up(), warn_here(f"sampling'),
    ],
    ("diffusion/denoiser.py", "tests/samplers/test_graphs.py"): [
        ("is_watched or torch.is_grad_enabled()", "False"),
        ("if torch.is_autocast_enabled(x.device.type):", "if False:"),
    ],
    ("diffusion/denoiser.py", "tests/diffusion/test_calls.py"): [
        ("if not is_one_level or is_watched", "if is_watched"),
        ("return forward_ad.unpack_dual(x).tangent is None", "return True"),
    ],
    ("diffusion/calls.py", "tests/diffusion/test_calls.py"): [
        ("slice(middle), slice(middle, None)", "slice(middle, None), slice(middle)"),
        ("None if given is None else given[rows]", "given"),
        (" or not is_plain_call(x, sigma)", ""),
        (" or not may_share()", ""),
        ("middle * x.shape[-2]", "len(x) * x.shape[-2]"),
    ],
    ("torch_utils/two_threads.py", "tests/torch_utils/test_two_threads.py"): [
        ("torch.set_num_threads(max(1, total // 2))", "pass"),
        ("torch.get_num_threads()  # the first", "pass  # the first"),
        ("torch.set_num_threads(total)", "pass"),
        ("wait(done)", "pass"),
        ("torch.inference_mode if torch.is_inference_mode_enabled() else ", ""),
        ("with mode():", "with torch.enable_grad():"),
        ("self._pool.shutdown()", "self._pool.shutdown(wait=False)"),
    ],
    ("diffusion/half.py", "tests/diffusion/test_half.py"): [
        ("is_last = isinstance(model, _WithLayout) and model.prefers_channels_last", "is_last = 1"),
        ("denoiser = _with_same_tensors(denoiser)", "denoiser = copy.deepcopy(denoiser)"),
        ("if weights.ndim == 4:", "if weights.ndim > 1:"),
    ],
}

CALL_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
