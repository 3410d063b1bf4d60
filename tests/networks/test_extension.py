"""A network is one module and one row: the contract covers it by its name, U-Net or not."""

import pytest

from networks import NETWORKS
from networks.blocks import set_remat
from tests.networks import test_contract as contract
from tests.networks.small import small_net
from torch_utils.errors import UserError
from torch_utils.registry import Row

PLAIN = {"name": "plain"}


def add(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    """A row for tests/networks/plain.py."""
    options = {"width": 8, "mistake": mistake}
    row = Row(target="tests.networks.plain:PlainNet", options=options, ranges={"width": (1, 64)})
    monkeypatch.setitem(NETWORKS, "plain", row)


def contract_holds() -> None:
    """Every contract test that needs no compiler, on the row that was added."""
    for resolution in ((8, 12), (12, 8)):
        contract.test_height_and_width_may_differ(PLAIN, resolution)
    contract.test_masked_label_is_no_label(PLAIN)
    contract.test_augmentation_labels_matter_and_may_be_left_out(PLAIN)
    contract.test_one_noise_condition_serves_the_whole_batch(PLAIN)
    contract.test_wrong_sizes_are_one_clear_line(PLAIN)
    contract.test_channels_last_gives_the_same_output(PLAIN)
    for wrt in ("both", "x", "c_noise"):
        contract.test_forward_derivative_equals_finite_differences(PLAIN, wrt, "cpu")
    contract.test_every_parameter_gets_a_gradient(PLAIN)
    contract.test_bfloat16_autocast_is_close_to_float32(PLAIN)
    contract.test_norms_embeddings_and_output_stay_in_float32_under_autocast(PLAIN)


def test_a_row_makes_a_module_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "none")
    contract_holds()
    with pytest.raises(UserError, match="network plain: width is 100: it must be from 1 to 64"):
        small_net("plain", width=100)


@pytest.mark.parametrize("mistake", ["deaf", "turned", "unused", "half", "detached"])
def test_a_network_that_breaks_a_promise_breaks_the_contract(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, mistake)
    with pytest.raises(AssertionError):
        contract_holds()


def test_whether_anything_can_be_computed_again_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, "none")
    assert not set_remat(small_net("plain"), True)
    net = small_net("ddpmpp")
    assert set_remat(net, True)
    assert any(getattr(module, "remat", False) for module in net.modules())
