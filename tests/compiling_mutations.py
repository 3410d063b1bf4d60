"""Changed lines of what compiles blocks, and the tests that notice."""

from tests.mutations import Mutant

_TABLE = {
    ("networks/compiled.py", "tests/networks/test_compiled.py"): [
        ("if not self.is_open:", "if False:"),
        ("kind, x.shape, x.stride()", "kind, x.stride()"),
        ("self._kinds.setdefault(_described(block), len(self._kinds))", "len(self._known)"),
        ("return type(None), ()", "return BlockCompiler, ()"),
    ],
    ("networks/blocks.py", "tests/networks/test_compiled.py"): [
        ("if is_dual:", "if False:"),
    ],
    ("training/compiling.py", "tests/training/test_compiling.py"): [
        ("with generators(trainer.world.device):", "if True:"),
        ("set_compiler(module, None)", "pass"),
    ],
}

COMPILING_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
