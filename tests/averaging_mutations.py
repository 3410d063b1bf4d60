"""Changed lines of what averages, compares and reconstructs weights, and the tests that notice."""

from tests.mutations import Mutant

_TABLE = {
    ("models/posthoc.py", "tests/models/test_posthoc.py"): [
        (
            "[1.0, 7.0, 16.0 - inverse, 12.0 - inverse]",
            "[1.0, 7.0, 16.0 - inverse, 12.0 + inverse]",
        ),
        ("(gamma_of(length) + 1))", "gamma_of(length))"),
        ("(a + 1) * (b + 1) / (a + b + 1)", "(a + 1) * (b + 1) / (a + b + 2)"),
        ("common = np.minimum(time_a", "common = np.maximum(time_a"),
        ("shares * common / (time_a * time_b)", "shares / (time_a * time_b)"),
        ("best + ones * (1 - best.sum()) / ones.sum()", "best"),
        ("own - 2 * coefficients @ with_target", "own - coefficients @ with_target"),
    ],
    (
        "training/ema.py",
        "tests/training/test_posthoc.py::test_every_average_follows_its_power_function",
    ): [
        ("power_decay(float(name), seen=seen", "power_decay(float(name), seen=seen + batch"),
    ],
    ("models/averaging.py", "tests/models/test_averaging.py"): [
        ("dtype=torch.float64", "dtype=torch.float32"),
        ("alpha=source.share", "alpha=1.0"),
    ],
    ("models/compare.py", "tests/models/test_averaging.py"): [
        ("math.sqrt(squares / size)", "math.sqrt(squares) / size"),
        ("max(largest, furthest)", "min(largest, furthest)"),
    ],
    ("models/reconstruct.py", "tests/models/test_averaging.py"): [
        ("if entry.info.images <= end]", "]"),
    ],
}

AVERAGING_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
