"""EDM's pickles, made on the spot in the published layout, come out as the networks in them."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.tables import iddpm_levels
from importers.edm import is_edm, read_edm, read_edm_state
from models.snapshot import load_snapshot, save_snapshot
from samplers.settings import generation_settings
from tests.importers.edm_files import (
    CANARY,
    NETWORKS,
    WRAPPERS,
    Persistent,
    denoiser_of,
    foreign_config,
    pickled,
    snapshot,
    training_state,
    whole,
    write,
)
from torch_utils.errors import UserError

WRAPPER, NETWORK = "EDMPrecond", "ddpmpp"


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(CANARY).exists()


def inputs(denoiser: Denoiser) -> tuple[Tensor, Tensor, Tensor]:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.standard_normal((3, 2, 8, 8))).float()
    return x, torch.tensor([0.05, 1.0, 20.0]), torch.eye(3)


def one(
    wrapper: str = WRAPPER, network: str = NETWORK, **changes: Any
) -> tuple[Denoiser, Persistent]:
    denoiser = denoiser_of(foreign_config(wrapper, network))
    return denoiser, snapshot(denoiser, wrapper, network, **changes)


def saved(tmp_path: Path, content: Any, name: str = "a.pkl") -> Path:
    return write(tmp_path / name, pickled(content))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_around_every_network_comes_back(
    wrapper: str, network: str, tmp_path: Path
) -> None:
    denoiser, ema = one(wrapper, network)
    path = saved(tmp_path, whole(ema), "network-snapshot-000123.pkl")
    found = read_edm(path)
    x, sigma, labels = inputs(denoiser)
    assert torch.equal(found.denoiser()(x, sigma, labels), denoiser(x, sigma, labels))
    assert found.notes == ()
    assert found.family == "edm"
    assert found.info.images == 123_000
    assert (found.info.label_kind, found.info.label_dropout) == ("class", 0.0)
    settings = generation_settings(found.info.sampling)
    assert (settings.name, settings.steps, settings.grid_name) == ("heun", 18, "rho")
    own = tmp_path / "own.safetensors"
    save_snapshot(own, found.state_dict, found.info)
    loaded, info = load_snapshot(own)
    assert info == replace(found.info, versions=info.versions)
    assert torch.equal(loaded(x, sigma, labels), denoiser(x, sigma, labels))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_network_alone_is_read_in_every_protocol_of_python(tmp_path: Path, protocol: int) -> None:
    denoiser, ema = one()
    path = write(tmp_path / "net.pkl", pickled(ema, protocol))
    assert is_edm(path)
    found = read_edm(path)
    x, sigma, labels = inputs(denoiser)
    assert torch.equal(found.denoiser()(x, sigma, labels), denoiser(x, sigma, labels))
    assert found.info.images == 0


def test_a_network_without_classes_has_no_labels(tmp_path: Path) -> None:
    denoiser = denoiser_of(foreign_config("VEPrecond", "ncsnpp", label_dim=0))
    path = saved(tmp_path, whole(snapshot(denoiser, "VEPrecond", "ncsnpp")))
    info = read_edm(path).info
    assert (info.model.label_dim, info.label_kind, info.label_dropout) == (0, None, None)


def test_the_stored_range_of_noise_levels_is_kept(tmp_path: Path) -> None:
    _, ema = one("VPPrecond")
    ema.meta["state"] |= {"sigma_min": np.float64(9.765625e-4), "sigma_max": 152.125}
    found = read_edm(saved(tmp_path, ema)).denoiser()
    assert (found.sigma_min, found.sigma_max) == (9.765625e-4, 152.125)
    _, ema = one("EDMPrecond")
    found = read_edm(saved(tmp_path, ema)).denoiser()
    assert (found.sigma_min, found.sigma_max) == (0, math.inf)


def test_constants_of_a_wrapper_count(tmp_path: Path) -> None:
    schedule = {"name": "vp", "beta_d": 15.0, "beta_min": 0.2}
    denoiser = denoiser_of(foreign_config("VPPrecond", NETWORK, schedule=schedule))
    ema = snapshot(denoiser, "VPPrecond", NETWORK, beta_d=15, beta_min=np.float64(0.2))
    found = read_edm(saved(tmp_path, ema))
    x, sigma, labels = inputs(denoiser)
    assert torch.equal(found.denoiser()(x, sigma, labels), denoiser(x, sigma, labels))
    denoiser = denoiser_of(foreign_config("EDMPrecond", NETWORK, sigma_data=0.7))
    ema = snapshot(denoiser, "EDMPrecond", NETWORK, sigma_data=0.7)
    found = read_edm(saved(tmp_path, ema))
    assert torch.equal(found.denoiser()(x, sigma, labels), denoiser(x, sigma, labels))


def published_table(num_steps: int, c_1: float, c_2: float) -> Tensor:
    """Improved DDPM's levels as EDM computes them, in float32 throughout."""
    index = torch.arange(num_steps + 1)
    alpha_bar = (0.5 * math.pi * index / num_steps / (c_2 + 1)).sin() ** 2
    u = torch.zeros(num_steps + 1)
    for j in range(num_steps, 0, -1):
        u[j - 1] = ((u[j] ** 2 + 1) / (alpha_bar[j - 1] / alpha_bar[j]).clip(min=c_1) - 1).sqrt()
    return u


def test_another_table_of_improved_ddpm_is_used_and_outlives_our_snapshot(tmp_path: Path) -> None:
    denoiser, ema = one("iDDPMPrecond", "adm")
    table = published_table(1000, 0.001, 0.008)
    table[:-1] *= torch.linspace(0.7, 1.3, 1000).flip(0)
    state = ema.meta["state"]
    state["_buffers"] = {"u": table}
    state |= {"sigma_min": float(table[-2]), "sigma_max": float(table[0])}
    found = read_edm(saved(tmp_path, ema))
    assert "its own table of noise levels counts" in found.notes[0]
    own = tmp_path / "own.safetensors"
    save_snapshot(own, found.state_dict, found.info)
    x, _, labels = inputs(denoiser)
    for model in (found.denoiser(), load_snapshot(own)[0]):
        assert (model.sigma_min, model.sigma_max) == (float(table[-2]), float(table[0]))
        for j in (999, 700, 300, 1):
            level = float(table[j])
            assert model.round_sigma(level * (1 + 1e-5)) == pytest.approx(level, rel=1e-9)
            scaled = (x.double() / math.sqrt(1 + level**2)).float()
            raw = denoiser.model(scaled, torch.full([3], 999.0 - j), labels, None, None)
            expected = x - level * raw[:, :2]
            near = 4e-6 * max(level, 1)  # what rounding of the input does to the output
            torch.testing.assert_close(model(x, level, labels), expected, rtol=1e-5, atol=near)


def test_the_published_float32_table_and_other_constants_of_improved_ddpm(tmp_path: Path) -> None:
    constants = {"num_steps": 60, "c_1": 0.01, "c_2": 0.02}
    schedule = {"name": "iddpm", **constants}
    denoiser = denoiser_of(foreign_config("iDDPMPrecond", NETWORK, schedule=schedule))
    ema = snapshot(denoiser, "iDDPMPrecond", NETWORK, M=60, C_1=0.01, C_2=0.02)
    found = read_edm(saved(tmp_path, ema))
    assert found.notes == ()
    table = found.denoiser().u
    assert table is not None
    np.testing.assert_allclose(table, iddpm_levels(60, 0.01, 0.02), rtol=1e-6)
    _, ema = one("iDDPMPrecond", "adm")
    u = published_table(1000, 0.001, 0.008)
    ema.meta["state"]["_buffers"] = {"u": u}
    ema.meta["state"] |= {"sigma_min": float(u[999]), "sigma_max": float(u[0])}
    loaded = read_edm(saved(tmp_path, ema)).denoiser()
    assert loaded.sigma_min == float(u[999]) == pytest.approx(0.0064223, abs=5e-7)
    assert loaded.round_sigma(0.0064) == pytest.approx(float(u[999]), rel=1e-9)


def test_arguments_by_position_and_in_numpys_and_edms_types(tmp_path: Path) -> None:
    denoiser, ema = one()
    state = ema.meta["state"]
    kwargs = state["_init_kwargs"]
    names = ("img_resolution", "img_channels", "label_dim", "use_fp16")
    state["_init_args"] = tuple(kwargs.pop(name) for name in names)
    kwargs["model_channels"] = np.int64(kwargs["model_channels"])
    kwargs["channel_mult"] = tuple(kwargs["channel_mult"])
    state["_modules"] = OrderedDict(state["_modules"])
    state["_buffers"] = {"none": None, "hidden": torch.zeros(3)}
    state["_non_persistent_buffers_set"] = {"hidden"}
    found = read_edm(saved(tmp_path, ema))
    x, sigma, labels = inputs(denoiser)
    assert torch.equal(found.denoiser()(x, sigma, labels), denoiser(x, sigma, labels))


def test_arguments_that_are_left_out_have_edms_defaults(tmp_path: Path) -> None:
    _, ema = one("EDMPrecond", "adm")
    del ema.meta["state"]["_init_kwargs"]["model_type"]
    assert read_edm(saved(tmp_path, ema)).info.model.network["name"] == "adm"
    _, ema = one("VPPrecond", "ddpmpp")
    for name in ("model_type", "embedding_type", "decoder_type", "resample_filter"):
        del ema.meta["state"]["_init_kwargs"][name]
    assert read_edm(saved(tmp_path, ema)).info.model.network["embedding_type"] == "positional"
    del ema.meta["state"]["_init_kwargs"]["channel_mult"]  # [1, 2, 2, 2] then
    with pytest.raises(UserError, match="do not make up the network"):
        read_edm(saved(tmp_path, ema))


def test_parameters_with_attributes_and_half_precision_are_read(tmp_path: Path) -> None:
    denoiser, ema = one(use_fp16=True)
    weight = torch.nn.Parameter(denoiser.model.map_layer0.weight.half())
    weight.note = "x"  # torch pickles it with its state then
    ema.meta["state"]["_modules"]["model"].meta["state"]["_modules"]["map_layer0"].meta["state"][
        "_parameters"
    ]["weight"] = weight
    found = read_edm(saved(tmp_path, ema))
    assert found.state_dict["model.map_layer0.weight"].dtype == torch.float32
    assert [note.split(" ")[-1] for note in found.notes] == ["float32", "float32"]
    assert "use_fp16" in found.notes[0]
    assert "float16" in found.notes[1]


def test_attention_without_room_for_a_head_is_left_out_as_in_edm(tmp_path: Path) -> None:
    _, ema = one("EDMPrecond", "adm", attn_resolutions=[8, 4])
    found = read_edm(saved(tmp_path, ema))
    assert found.info.model.network["attn_resolutions"] == [4]
    assert "no attention at 8 pixels" in found.notes[0]


def test_attributes_that_are_not_what_the_arguments_make_draw_a_note(tmp_path: Path) -> None:
    _, ema = one()
    modules = ema.meta["state"]["_modules"]["model"].meta["state"]["_modules"]
    modules["enc"]._modules["8x8_block0"].meta["state"]["skip_scale"] = 1.0
    (note,) = read_edm(saved(tmp_path, ema)).notes
    assert "model.enc.8x8_block0.skip_scale 1 for 0.707107" in note


def nested_lists() -> list[Any]:
    """10^40 items, if they are written out."""
    content: list[Any] = [1]
    for _ in range(40):
        content = [content] * 10
    return content


def _set(part: str, value: Any) -> Callable[[Persistent], None]:
    def change(ema: Persistent) -> None:
        ema.meta["state"][part] = value

    return change


def _argument(**more: Any) -> Callable[[Persistent], None]:
    return lambda ema: ema.meta["state"]["_init_kwargs"].update(more)


def _weight(value: Any) -> Callable[[Persistent], None]:
    def change(ema: Persistent) -> None:
        layers = ema.meta["state"]["_modules"]["model"].meta["state"]["_modules"]
        layers["map_layer0"].meta["state"]["_parameters"]["weight"] = value

    return change


def _cut(ema: Persistent) -> None:
    del ema.meta["state"]["_modules"]["model"].meta["state"]["_modules"]["map_layer1"]


def _twice(ema: Persistent) -> None:
    layers = ema.meta["state"]["_modules"]["model"].meta["state"]["_modules"]
    layers["map_layer2"] = layers["map_layer1"]


REFUSED: dict[str, tuple[Callable[[Persistent], Any], str]] = {
    "version": (lambda ema: ema.meta.update(version=5), "of version 5, only version 6"),
    "wrapper": (lambda ema: ema.meta.update(class_name="EDM2"), "holds a 'EDM2', not one of VP"),
    "type": (lambda ema: ema.meta.update(type="module"), "an object that is not of a class"),
    "source": (lambda ema: ema.meta.update(module_src=3), "without class or attributes"),
    "long-source": (lambda ema: ema.meta.update(module_src="x" * 2**23), "too long a source"),
    "unknown-argument": (_argument(chanel_mult=[1]), "unknown option of EDMPrecond: 'chanel_mult'"),
    "argument-of-vp": (_argument(beta_d=3.0), "unknown option of EDMPrecond: 'beta_d'"),
    "argument-of-adm": (_argument(model_type="DhariwalUNet"), "unknown option of EDMPrecond"),
    "no-network": (_argument(model_type="UNet"), "model_type is 'UNet', not one of SongUNet"),
    "type-of-network": (_argument(model_type=3), "its model_type is of type int"),
    "type-of-argument": (_argument(model_channels="16"), "model_channels is '16': it must be"),
    "negative": (_argument(dropout=-1.0), "dropout is -1: it must be from 0 to 1"),
    "many-levels": (_argument(channel_mult=[1] * 99), "channel_mult is"),
    "many-blocks": (_argument(num_blocks=900), "it says 1800 blocks, but has"),
    "wide": (_argument(model_channels=2**20), "do not make up the network"),
    "nested-lists": (_argument(channel_mult=nested_lists()), "'channel_mult' is not a number, a"),
    "many-items": (_argument(channel_mult=[1] * 200), "'channel_mult' is not a number, a"),
    "huge-number": (_argument(label_dim=10**5000), "'label_dim' is not a number, a name or a"),
    "huge-name": (_argument(model_type="x" * 999), "'model_type' is not a number, a name or a"),
    "huge-argument": (_argument(**{"x" * 999: 1}), "an argument without a name"),
    "no-arguments": (_set("_init_kwargs", None), "does not say how it was made"),
    "many-arguments": (_set("_init_args", (1,) * 99), "was made with 99 arguments"),
    "argument-twice": (_set("_init_args", (8,)), "the argument 'img_resolution' twice"),
    "range": (_set("sigma_min", "0.1"), "a sigma_min that is not a number"),
    "nan": (_set("sigma_max", math.nan), "a sigma_max that is not a number"),
    "empty-range": (_set("sigma_max", 0.0), "sigma_min must be below sigma_max"),
    "not-a-tensor": (_weight(3), "model.map_layer0.weight in it is not a tensor"),
    "integers": (_weight(torch.zeros(64, 16, dtype=torch.int64)), "weights are real numbers"),
    "shape": (_weight(torch.zeros(64, 17)), "1 of another shape: model.map_layer0.weight"),
    "missing": (_cut, "2 missing: model.map_layer1.bias, model.map_layer1.weight"),
    "twice": (_twice, "model.map_layer1.weight and model.map_layer2.weight in it are one tensor"),
    "no-modules": (_set("_modules", [1]), "its EDMPrecond has no sound _modules"),
    "not-a-module": (_set("_modules", {"model": 3}), "model in it is not a module"),
    "odd-name": (_set("_modules", {"a.b": None}), "no sound _modules"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_such_a_network_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, words = REFUSED[name]
    _, ema = one()
    change(ema)
    path = saved(tmp_path, whole(ema))
    with pytest.raises(UserError) as caught:
        read_edm(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).replace(str(tmp_path), "")) < 500


@pytest.mark.parametrize("damage", ["rising", "nan", "no zero", "short"])
def test_a_table_that_does_not_fall_to_zero_is_refused(damage: str, tmp_path: Path) -> None:
    _, ema = one("iDDPMPrecond", "ddpmpp")
    table = published_table(1000, 0.001, 0.008)
    match damage:
        case "rising":
            table = table.flip(0)
        case "nan":
            table[5] = math.nan
        case "no zero":
            table[-1] = 1e-5
        case _:
            table = table[1:].clone()
    ema.meta["state"]["_buffers"] = {"u": table}
    with pytest.raises(UserError, match=r"do not fall to 0|1 of another shape: u"):
        read_edm(saved(tmp_path, ema))


def test_other_contents_are_refused_and_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it holds keys D, G, G_ema, not a network"):
        read_edm(saved(tmp_path, {"G": None, "D": None, "G_ema": None}))
    with pytest.raises(UserError, match="it holds a list, not a network"):
        read_edm(saved(tmp_path, [1]))
    with pytest.raises(UserError, match="it holds a 'EDMLoss', not one of"):
        read_edm(saved(tmp_path, Persistent("EDMLoss", {})))
    with pytest.raises(UserError, match="no checkpoint at"):
        read_edm(tmp_path / "absent.pkl")
    with pytest.raises(UserError, match="pipe, device or folder"):
        read_edm(tmp_path)
    _, ema = one()
    with pytest.raises(UserError, match="has averaged weights only: leave out --weights=raw"):
        read_edm(saved(tmp_path, whole(ema)), weights="raw")


def test_a_training_state_has_the_raw_weights(tmp_path: Path) -> None:
    denoiser, net = one("VPPrecond", "ncsnpp")
    path = write(tmp_path / "training-state-000200.pt", training_state(net, denoiser))
    assert is_edm(path)
    found = read_edm_state(path)
    x, sigma, labels = inputs(denoiser)
    assert torch.equal(found.denoiser()(x, sigma, labels), denoiser(x, sigma, labels))
    assert (found.info.images, found.info.ema) == (200_000, None)
    assert found.notes == ("the moments of its optimizer are left out",)
    assert read_edm(path, weights="raw").info == found.info
    with pytest.raises(UserError, match="no averaged weights: give the network-snapshot"):
        read_edm(path)
    beside = saved(tmp_path, whole(net))
    assert read_edm_state(path, beside).info == found.info
    other = saved(tmp_path, whole(one("VPPrecond", "ddpmpp")[1]), "b.pkl")
    with pytest.raises(UserError, match="are of different models"):
        read_edm_state(path, other)
    with pytest.raises(UserError, match="is not a training state of EDM"):
        read_edm_state(beside)


def test_only_edms_files_are_taken_for_them(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pt"
    torch.save({"weight": torch.zeros(3)}, plain)
    assert not is_edm(plain)
    torch.save({"weight": torch.zeros(3)}, plain, _use_new_zipfile_serialization=False)
    assert not is_edm(plain)
    assert not is_edm(tmp_path)
    assert not is_edm(tmp_path / "absent.pkl")
    assert not is_edm(write(tmp_path / "a.txt", b"PK\x03\x04 and no more"))
