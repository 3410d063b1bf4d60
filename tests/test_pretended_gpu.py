"""The code as it runs on CUDA, on a machine without a GPU; see tests/pretend."""

import json
import subprocess
import sys

import pytest

from tests.pretend.build import ROOT, environment, why_not

reason = why_not()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

CHECKS = (
    "a_step_does_not_wait",
    "a_step_is_that_of_the_cpu",
    "data_are_uploaded_once",
    "sampling_does_not_wait",
    "sampling_is_that_of_the_cpu",
    "layouts_stay",
    "a_denoiser_call_can_be_captured",
    "float32_is_not_rounded",
    "a_process_computes_on_its_own_device",
)


def run(*command: str, devices: int = 1, computing: bool = False) -> str:
    """Run Python where pretended GPUs are seen; its output."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(devices, computing=computing),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def errors(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """What became of the checks of this session, all in one process."""
    wanted = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    names = [params["check"] for params in wanted if params.get("check") in CHECKS]
    return dict(
        json.loads(line)
        for line in run("-m", "tests.pretend.checks", *names, devices=2).splitlines()
    )


@pytest.mark.parametrize("check", CHECKS)
def test_on_a_pretended_gpu(check: str, errors: dict[str, str | None]) -> None:
    assert errors[check] is None, errors[check]
