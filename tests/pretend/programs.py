"""Run several command lines one after the other: `... programs train.py ARGS -- fid.py ref ARGS`.

Each runs in a child of one process that has imported what all of them need, which takes longer than
the programs themselves.
"""

import importlib
import os
import runpy
import sys

_IMPORTED = (
    "torch._dynamo",
    "torch.distributed",
    "data.dataset",
    "training.loop",
    "metrics.frechet",
)


def main() -> None:
    """Run the programs until one fails; its exit code is ours."""
    for name in _IMPORTED:
        importlib.import_module(name)
    programs: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        if word == "--":
            programs.append([])
        else:
            programs[-1].append(word)
    for program in programs:
        child = os.fork()
        if child == 0:
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")  # our scripts end the process
            raise AssertionError(f"{program[0]} returned")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != 0:
            sys.exit(f"{' '.join(program)}: exit code {code}")


if __name__ == "__main__":
    main()
