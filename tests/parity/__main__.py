"""`python -m tests.parity DIR [--kinds A,B] [--cases X,Y]`: judge Driftless by golden numbers."""

from pathlib import Path

import click

from torch_utils.command import Command
from torch_utils.errors import UserError


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@click.option("--kinds", metavar="LIST", help="Only these kinds, comma-separated.")
@click.option("--cases", metavar="LIST", help="Only cases with these names, comma-separated.")
def main(folder: str, kinds: str | None, cases: str | None) -> int:
    """Run every golden case of DIR; exit 0 only if all are ok."""
    from tests.parity.harness import read_cases, run_case
    from tests.parity.kinds import KINDS

    chosen = [
        case
        for case in read_cases(Path(folder).resolve())  # cases change the directory
        if (kinds is None or case.kind in kinds.split(","))
        and (cases is None or case.name in cases.split(","))
    ]
    if not chosen:
        raise UserError(f"no golden case in {folder} matches --kinds={kinds} --cases={cases}")
    failures = 0
    for case in chosen:
        result = run_case(case, KINDS)
        failures += not result.passed
        click.echo(result.line())
        if result.reason:
            click.echo(f"  {result.case.name}: {result.reason}", err=True)
    click.echo(f"{len(chosen) - failures} ok, {failures} FAIL")
    return int(failures > 0)


if __name__ == "__main__":
    main()
