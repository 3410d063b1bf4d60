"""Mutants of what says how much a run costs, and where its time goes, benchmarks too."""

from tests.mutations import Mutant

_ESTIMATE = "tests/training/test_estimate.py::test_"
_PROFILING = "tests/training/test_profiling.py::test_"
_STEPS = _PROFILING + "a_profile_has_the_steps_asked_for_and_changes_no_bit"

_STARTS = "tests/test_benchmark_starts.py::test_"
_HANDED_ON = (
    _STARTS + "what_the_user_chose_for_threads_is_handed_on_and_what_benchmarks_chose_is_not"
)
_KEEP = _STARTS + "processes_that_benchmarks_start_keep_freed_memory_as_our_programs"

# (file, tests) -> (original, replacement)
_TABLE: dict[tuple[str, str], list[tuple[str, str]]] = {
    (
        "training/memory.py",
        _ESTIMATE + "the_flops_of_a_step_are_those_that_pytorch_counts_in_a_real_one",
    ): [("flops.total * (self.share // num)", "flops.total")],
    (
        "torch_utils/flops.py",
        _ESTIMATE + "attention_counts_the_same_fused_and_by_hand",
    ): [("self.total += formula(*args, **named)", "pass")],
    (
        "training/estimate.py",
        _ESTIMATE + "guidance_evaluates_the_network_twice_where_it_acts",
    ): [
        ("round(settings.num_calls * (1 + share))", "2 * settings.num_calls"),
        ("not guidance.is_active or", ""),
    ],
    (
        "training/estimate.py",
        _ESTIMATE + "previews_come_after_the_first_step_at_every_multiple_and_at_the_end",
    ): [("(1 if seen == 0 else 0)", "1")],
    (
        "training/estimate.py",
        _ESTIMATE + "averages_a_copy_of_the_state_and_images_are_a_part_of_the_memory",
    ): [("(4 + len(config.ema.posthoc)) * forecast", "4 * forecast")],
    ("training/update.py", "tests/training/test_update.py"): [
        ("self._steps[1:] += 1", "pass"),
        ("        self._moments = []  # small", "        # small"),
        ("if len(steps) > 1:", "if False:"),
        ("if not is_bad:", "if True:"),
        ("torch._foreach_copy_(self._gathered.parts, small)", "pass"),
        ("kernel = adamw if", "kernel = adam if"),
        ("is_alike = moment.stride() == parameter.stride()", "is_alike = True"),
        ("torch.empty_like(parameter).copy_(moment)", "torch.zeros_like(parameter)"),
        ("for memory in self._memories)", "for memory in self._memories[:2])"),
    ],
    ("training/joined.py", "tests/training/test_update.py"): [
        ("if num < len(self._starts) else None", "if num else None"),
        ("tensor.stride(), start)", "tensor.stride(), 0)"),
    ],
    ("benchmarks/hardware.py", _HANDED_ON): [
        ("if name not in SET_HERE", 'if name != "GOMP_SPINCOUNT"'),
    ],
    ("benchmarks/__main__.py", _HANDED_ON): [
        ("environment = own_environment()", "environment = None"),
    ],
    ("benchmarks/hardware.py", _KEEP + "[bench_compile]"): [
        ("    keep_freed_memory()", "    pass"),
    ],
    ("benchmarks/bench_compile.py", _KEEP + "[bench_compile]"): [
        ("prepared_afresh(device.type, trains=True)", "pass"),
    ],
    ("benchmarks/bench_scaling.py", _KEEP + "[bench_scaling]"): [
        ("prepared_afresh(device.type, trains=True)", "device"),
    ],
    ("benchmarks/neighbour_work.py", _KEEP + "[neighbour_work]"): [
        ("    keep_freed_memory()", "    pass"),
    ],
    (
        "benchmarks/bench_half.py",
        "tests/test_benchmarks.py::test_float32_in_channels_last_is_that_on_every_device",
    ): [("apart.model.to(memory_format=torch.channels_last)", "pass")],
    (
        "benchmarks/bench_training.py",
        "tests/test_yardstick.py::test_steps_of_a_process_that_has_ended_are_one_line",
    ): [
        ("contextlib.suppress(BrokenPipeError)", "contextlib.suppress(KeyError)"),
        ("if not answer:", "if False:"),
    ],
    ("training/profiling.py", _STEPS): [
        ("event.count / num", "event.count"),
        ("self._first = seen", "pass"),
    ],
    (
        "training/profiling.py",
        _PROFILING + "a_run_that_ends_before_is_profiled_as_far_as_it_goes",
    ): [("if num < 1:", "if num < 0:")],
}

COST_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
