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
        ("len(remove_damaged(folder))", "0"),
        ("return line + _advice() if may_be_damage else line", "return line"),
        ("if may_be_damage else line", "if True else line"),
        ("0 if folder is None else", ""),
        (' if folders else ""', ""),
        ("contextlib.suppress(Exception)", "contextlib.suppress(KeyError)"),
        ("folder, num_damaged = None, 0", "folder, num_damaged = kernel_folder(), 0"),
    ],
    ("torch_utils/kernel_cache.py", "tests/torch_utils/test_kernel_cache.py"): [
        ("return len(key) >= _SHORTEST_KEY and path.parent.name == key[1:3]", "return True"),
        (" and path.parent.name == key[1:3]", ""),
        ("or start + num * entry > size", ""),
        ("and names < num", ""),
        ("names < num", "names <= num"),
        ("and entry == _SECTION_BYTES", ""),
        ("kind == _STRING_TABLE", "True"),
        ("{_key(path)}.lock", "{path.stem}.lock"),
        ("return size > 0", "return True"),
        (' and (default / "precompiled_headers").exists()', ""),
        ("found.append(Path(triton).absolute())", "pass"),
        (" or folder not in path.parents", ""),
        ("except (KeyError, OSError, ImportError):", "except (OSError, ImportError):"),
        ("except (KeyError, OSError, ImportError):", "except (KeyError, ImportError):"),
        ("except (KeyError, OSError, ImportError):", "except (KeyError, OSError):"),
    ],
}

COMPILING_MUTANTS = [
    Mutant(file, original, replacement, (tests,))
    for (file, tests), changes in _TABLE.items()
    for original, replacement in changes
]
