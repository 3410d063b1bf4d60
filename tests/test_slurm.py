"""examples/slurm.sh without SLURM: little programs stand in for srun and scontrol."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from tests.command import ENVIRONMENT, ROOT
from tests.training.runs import OVERRIDES
from training.state import newest_state

SCRIPT = ROOT / "examples" / "slurm.sh"
NODES = "node[3-4]"

# notes what it is asked, and whether the training had saved by then; knows the nodes
SCONTROL = """
echo "$@" $(cd "$NOTES" && ls | grep -x saved) >> "$NOTES/scontrol"
[ "$1" != show ] || printf 'node3\\nnode4\\n'
"""
# notes how it is called, then does what TRAINING says
SRUN = """
printf '%s\\n' "$@" > "$NOTES/srun"
env | grep -E '^(OMP_NUM_THREADS|DRIFTLESS_CACHE|SRUN_CPUS_PER_TASK)=' > "$NOTES/environment"
exec bash -c "$TRAINING"
"""
SAVES = (
    "trap 'sleep 1; touch $NOTES/saved; kill $!; exit 75' TERM;"
    " sleep 60 > /dev/null 2>&1 & touch $NOTES/ready; wait"
)
DEAF = "trap '' TERM; touch $NOTES/ready; for i in {1..60}; do sleep 1; done"

needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
pytestmark = needs_bash


def job(
    folder: Path, *options: str, srun: str = SRUN, scontrol: str = SCONTROL, **variables: str
) -> subprocess.Popen[str]:
    """Start the script as SLURM does, with `folder` for notes."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in (("srun", srun), ("scontrol", scontrol)):
        (tools / name).write_text(f"#!/bin/bash\n{text}")
        (tools / name).chmod(0o755)
    programs = Path(sys.executable).parent
    job_variables = {
        "PATH": f"{tools}{os.pathsep}{programs}{os.pathsep}{os.environ['PATH']}",
        "NOTES": str(folder),
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NODELIST": NODES,
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
    }
    return subprocess.Popen(
        ["bash", str(SCRIPT), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, **job_variables, **variables},
    )


def signalled(folder: Path, number: signal.Signals, training: str, **variables: str) -> str:
    """Send the script a signal once the training is ready; its output, with the exit code."""
    process = job(folder, "--outdir=runs", TRAINING=training, **variables)
    end = time.monotonic() + 60
    while not (folder / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    return f"{output}exit code {process.returncode}"


def requests(folder: Path) -> list[str]:
    """What scontrol was asked."""
    return (folder / "scontrol").read_text().splitlines()


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


def test_the_nodes_meet_at_the_first_and_train_with_one_command(tmp_path: Path) -> None:
    given = ["--config=configs/digits.yaml", "--outdir=/shared/my runs", "run.desc=a b"]
    process = job(tmp_path, *given, TRAINING="exit 3")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output  # that of the training
    assert requests(tmp_path) == [f"show hostnames {NODES}"]
    words = (tmp_path / "srun").read_text().splitlines()
    assert words[0] == "torchrun"
    for option in (
        "--nnodes=2",
        "--nproc_per_node=4",
        "--rdzv_endpoint=node3:21234",
        "--rdzv_id=1234-0",
    ):
        assert option in words
    place = words.index("train.py")
    assert words[place - 1] == "--"
    arguments = words[place + 1 :]
    assert arguments == ["--resume=latest", *given]
    train.main.make_context("train.py", list(arguments))
    found = dict(line.split("=") for line in (tmp_path / "environment").read_text().splitlines())
    assert found["OMP_NUM_THREADS"] == "8"
    assert found["SRUN_CPUS_PER_TASK"] == "32"


def test_threads_and_the_cache_have_values_without_the_variables_of_slurm(tmp_path: Path) -> None:
    empty = {"SLURM_CPUS_PER_TASK": "", "SLURM_GPUS_ON_NODE": "", "DRIFTLESS_CACHE": ""}
    process = job(tmp_path, TRAINING="exit 0", TMPDIR="/local/scratch", **empty)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    found = (tmp_path / "environment").read_text().splitlines()
    assert "OMP_NUM_THREADS=1" in found
    assert f"DRIFTLESS_CACHE=/local/scratch/driftless-{os.getuid()}" in found


def test_the_signal_of_slurm_becomes_term_and_the_job_is_requeued_once_it_has_saved(
    tmp_path: Path,
) -> None:
    output = signalled(tmp_path, signal.SIGUSR1, SAVES)
    assert "asking the training to save" in output
    assert "exit code 0" in output
    assert requests(tmp_path)[1:] == ["requeue 1234 saved"]


def test_a_training_that_does_not_end_is_killed_and_the_job_is_requeued(tmp_path: Path) -> None:
    began = time.monotonic()
    output = signalled(tmp_path, signal.SIGUSR1, DEAF, PATIENCE="2")
    assert time.monotonic() - began < 30
    assert "it has not ended after 2 s: the next start uses its last state" in output
    assert "exit code 0" in output
    assert requests(tmp_path)[1:] == ["requeue 1234"]


def test_a_cancelled_job_saves_and_is_not_requeued(tmp_path: Path) -> None:
    output = signalled(tmp_path, signal.SIGTERM, SAVES)
    assert "exit code 143" in output
    assert (tmp_path / "saved").exists()
    assert len(requests(tmp_path)) == 1


def test_the_manual_and_the_script_show_commands_that_train_understands() -> None:
    pages = [ROOT / "docs" / "cluster.md", SCRIPT]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    lines = re.findall(r"sbatch (?:--\S+ )*examples/slurm\.sh (.+)", text)
    assert len(lines) >= 2
    for line in lines:
        train.main.make_context("train.py", shlex.split(line))
    # the manual says what is set and waited for
    for word in ("--signal=B:USR1@60", "--requeue", "PATIENCE", "--max-restarts=3"):
        assert word in pages[0].read_text(encoding="utf-8")
        assert word in SCRIPT.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_job_of_two_processes_that_runs_out_of_time_goes_on(tmp_path: Path) -> None:
    """The real torchrun on this machine; it would train for hours, then for one step."""
    options = ("--config=configs/digits-tiny.yaml", f"--outdir={tmp_path / 'runs'}", *OVERRIDES)
    variables = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "2"}
    here = {"srun": 'exec "$@"\n', "scontrol": SCONTROL.replace("node3", "localhost")}
    process = job(tmp_path, *options, "run.duration=1000000it", **variables, **here)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/training-state-*")):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "state saved" in output
    assert requests(tmp_path)[1:] == ["requeue 1234"]
    (folder,) = (tmp_path / "runs").iterdir()
    _, state, problems = newest_state(folder)
    assert state is not None
    assert not problems
    seen = state["trainer"]["seen"]
    last = job(tmp_path, *options, f"run.duration={seen + 16}img", **variables, **here)
    output, _ = last.communicate(timeout=240)
    assert last.returncode == 0, output
    assert f"from {seen:,} images" in output
