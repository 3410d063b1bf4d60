"""Changed lines of the fused kernels and of what trusts them, and the tests that notice."""

from tests.mutations import Mutant

_TESTS = "tests/networks/test_fused.py"
_TABLE = {
    "networks/norm_kernels.py": [
        ("tl.sum(squares + nums * apart * apart)", "tl.sum(squares)"),
        ("means += delta / num_blocks", "means += delta"),
        ("scale * sum_dz_xhat, mask", "sum_dz_xhat, mask"),
        ("(a * sum_dz - pixels * of_mean - of_std * sum_xhat)", "(a * sum_dz - pixels * of_mean)"),
        ("w * sum_dz_xhat + v * sum_dz", "w * sum_dz_xhat"),
        ("gradient * s * (1.0 + z * (1.0 - s))", "gradient * s"),
    ],
    "networks/sum_kernels.py": [
        ("row // channels * stride + row % channels * pixels", "row * pixels"),
    ],
    "networks/fused_norm.py": [
        ("if torch.is_grad_enabled():", "if False:"),
        ("dcondition.sum(dim=0, keepdim=True)", "dcondition[:1]"),
        ("gradients[0] = gradients[0] + through", "pass"),
    ],
    "networks/fused_sum.py": [
        ("sums.sum(dim=0, keepdim=True)", "sums[:1]"),
    ],
    "networks/fused.py": [
        ("if not value <= BOUNDS[dtype]:", "if value > BOUNDS[dtype]:"),
        ('if os.environ.get(VARIABLE) == "0":', "if False:"),
        ("saved_tensors_hooks(_same, _same),", ""),
        ("torch.inference_mode(False),", ""),
        ("raise error", "pass"),
    ],
}

FUSING_MUTANTS = [
    Mutant(file, original, replacement, (_TESTS,))
    for file, changes in _TABLE.items()
    for original, replacement in changes
]
