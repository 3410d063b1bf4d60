"""Names and addresses of models: published ones, fetched once, checked, and one line offline."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import driftless
from importers import names
from importers.names import PUBLISHED, model_address, names_near, row_of_file
from importers.opening import find_model, is_model, read_model
from samplers.settings import generation_settings
from tests.command import ENVIRONMENT, ROOT, assert_refused, call, torchrun
from tests.importers.foreign_files import edm_snapshot, sa_dpm_average
from tests.server import Server, serving
from torch_utils import downloads
from torch_utils.addresses import file_name
from torch_utils.errors import UserError

BASE = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network beyond this machine."""
    monkeypatch.setenv("DRIFTLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(downloads, "_PAUSE", 0.0)
    return tmp_path / "cache" / "models"


@pytest.mark.parametrize(
    ("name", "file", "settings"),
    [
        ("edm:cifar10-32x32-cond-vp", "edm-cifar10-32x32-cond-vp", (18, 0.0)),
        ("edm:cifar10-32x32-uncond-ve", "edm-cifar10-32x32-uncond-ve", (18, 0.0)),
        ("edm:ffhq-64x64-uncond-vp", "edm-ffhq-64x64-uncond-vp", (40, 0.0)),
        ("edm:afhqv2-64x64-uncond-ve", "edm-afhqv2-64x64-uncond-ve", (40, 0.0)),
        ("edm:imagenet-64x64-cond-adm", "edm-imagenet-64x64-cond-adm", (256, 40.0)),
        (
            "edm:baseline-cifar10-32x32-uncond-vp",
            "baseline/baseline-cifar10-32x32-uncond-vp",
            (18, 0.0),
        ),
        (
            "edm:baseline-imagenet-64x64-cond-adm",
            "baseline/baseline-imagenet-64x64-cond-adm",
            (256, 40.0),
        ),
    ],
)
def test_a_name_stands_for_an_address_and_a_sampler(
    name: str, file: str, settings: tuple[int, float]
) -> None:
    assert model_address(name) == (f"{BASE}/{file}.pkl", None)
    chosen = generation_settings(PUBLISHED[name].sampling)
    assert (chosen.name, chosen.steps, chosen.options["S_churn"]) == ("heun", *settings)
    if settings[1]:
        rest = [chosen.options[key] for key in ("S_min", "S_max", "S_noise")]
        assert rest == [0.05, 50.0, 1.003]
    # a copy under the published name is sampled alike, and so is one in the cache
    assert row_of_file(f"{file.rpartition('/')[2]}.pkl") == PUBLISHED[name]
    assert row_of_file(file_name(f"{BASE}/{file}.pkl")) == PUBLISHED[name]


def test_there_are_twelve_and_no_torch_is_imported_for_them() -> None:
    assert len(PUBLISHED) == 12
    assert len({row.address for row in PUBLISHED.values()}) == 12
    code = "import sys, importers.names, importers.command_line; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("edm:cifar10-32x32-cond-pv", "did you mean 'edm:cifar10-32x32-cond-vp'"),
        ("EDM:ffhq-64x64-uncond-vp", "did you mean 'edm:ffhq-64x64-uncond-vp'"),
        ("edm:nothing", "known are edm:afhqv2-64x64-uncond-ve, "),
        ("edm-ffhq-64x64-uncond-vp.pkl", "did you mean edm:ffhq-64x64-uncond-vp?"),
        ("cifar10-32x32-cond-vp", "no snapshot at cifar10-32x32-cond-vp"),
        ("http://example.org/a.pkl", "use https"),
        ("https://example.org/a.pkl#md5=1", "after the # of an address comes sha256="),
    ],
)
def test_what_is_no_name_is_answered_with_the_nearest(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        find_model(text)
    assert words in str(caught.value)
    assert_refused(call("generate.py", f"--network={text}", "--outdir=x"), words)


def test_names_are_near_by_their_letters_or_their_file() -> None:
    assert names_near("models/edm-imagenet-64x64-cond-adm.pkl") == ["edm:imagenet-64x64-cond-adm"]
    assert names_near("runs/00003") == []


def test_offline_a_name_is_one_line_with_the_address_and_the_place(
    cache: Path, tmp_path: Path
) -> None:
    name = "edm:cifar10-32x32-cond-vp"
    place = cache / file_name(PUBLISHED[name].address)
    words = [PUBLISHED[name].address, f"put the file at {place}", "connect to the network"]
    rest = f"--outdir={tmp_path / 'o'}"
    assert_refused(call("generate.py", f"--network={name}", rest), *words)
    assert_refused(call("fid.py", "gen", f"--network={name}", f"--ref={tmp_path}"), *words)
    tiny = "--config=configs/digits-tiny.yaml"
    assert_refused(call("train.py", tiny, f"--transfer={name}", rest), *words)
    with pytest.raises(UserError, match="put the file at"):
        driftless.load(name)
    # a copy that was put there works
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(edm_snapshot(tmp_path).read_bytes())
    done = call("generate.py", f"--network={name}", rest, "--seeds=0", "--steps=2")
    assert done.returncode == 0, done.stderr
    assert place.with_name(f"{place.name}.sha256").is_file()
    place.write_bytes(b"another")
    assert_refused(call("generate.py", f"--network={name}", rest), "it has changed")


def test_a_named_model_has_its_published_sampler(cache: Path, tmp_path: Path) -> None:
    name = "edm:imagenet-64x64-cond-adm"
    place = cache / file_name(PUBLISHED[name].address)
    place.parent.mkdir(parents=True)
    place.write_bytes(edm_snapshot(tmp_path).read_bytes())
    info = read_model(find_model(name)).info
    assert (info.sampling["steps"], info.sampling["S_churn"]) == (256, 40.0)


def test_a_url_is_fetched_once_and_checked(server: Server, cache: Path, tmp_path: Path) -> None:
    content = edm_snapshot(tmp_path).read_bytes()
    server.answers["/a/network-snapshot-000012.pkl"] = content
    url = server.url("/a/network-snapshot-000012.pkl")
    digest = hashlib.sha256(content).hexdigest()
    for text in (url, f"{url}#sha256={digest}", url):
        path = find_model(text)
        assert path.read_bytes() == content
        assert path.parent == cache
    assert len(server.asked) == 1
    assert is_model(url)
    rest = [f"--outdir={tmp_path / 'o'}", "--seeds=0", "--steps=2"]
    done = call("generate.py", f"--network={url}", *rest)
    assert done.returncode == 0, done.stderr
    wrong = "0" * 64
    assert_refused(call("generate.py", f"--network={url}#sha256={wrong}", *rest), digest, wrong)
    assert len(server.asked) == 1


def test_a_url_that_is_not_there_leaves_nothing(
    server: Server, cache: Path, tmp_path: Path
) -> None:
    url = server.url("/absent.pth")
    done = call("generate.py", f"--network={url}", f"--outdir={tmp_path / 'o'}")
    assert_refused(done, url, "404", str(cache))
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_what_tensors_do_not_tell_of_a_url_is_given_by_an_option(
    server: Server, tmp_path: Path
) -> None:
    path = sa_dpm_average(tmp_path)
    server.answers["/model_1475_ema.pth"] = path.read_bytes()
    words = [f"--network={server.url('/model_1475_ema.pth')}", f"--outdir={tmp_path / 'o'}"]
    assert_refused(call("generate.py", *words), "img_resolution", "--model-config")
    side = f"--model-config={path.with_suffix('.yaml')}"
    done = call("generate.py", *words, side, "--seeds=0", "--steps=2")
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 1


def test_results_name_an_address_without_its_secrets(server: Server, tmp_path: Path) -> None:
    server.answers["/a.pkl?token=secret"] = edm_snapshot(tmp_path).read_bytes()
    images = tmp_path / "images"
    url = server.url("/a.pkl?token=secret")
    rest = ["--seeds=0-3", "--steps=2"]
    assert call("generate.py", f"--network={url}", f"--outdir={images}", *rest).returncode == 0
    how = [f"--ref={images}", "--detector=pixels", f"--log={tmp_path / 'log'}"]
    done = call("fid.py", "gen", f"--network={url}", *how, *rest)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr + (tmp_path / "log").read_text()


def test_the_table_can_be_another(server: Server) -> None:
    row = replace(PUBLISHED["edm:cifar10-32x32-cond-vp"], address=server.url("/x.pkl"))
    assert model_address("our:x", {"our:x": row}) == (row.address, None)
    with pytest.raises(UserError, match="did you mean 'our:x'"):
        names.model_address("our:y", {"our:x": row})


@pytest.mark.slow
def test_two_processes_fetch_a_model_once(server: Server, tmp_path: Path) -> None:
    path = edm_snapshot(tmp_path)
    server.answers["/network-snapshot-000012.pkl"] = path.read_bytes()
    url = server.url("/network-snapshot-000012.pkl")
    how = ["--seeds=0-3", "--steps=2"]
    kept = Path(ENVIRONMENT["DRIFTLESS_CACHE"]) / "models" / file_name(url)
    try:
        done = torchrun(2, "generate.py", f"--network={url}", f"--outdir={tmp_path / 'a'}", *how)
    finally:
        kept.unlink(missing_ok=True)
        kept.with_name(f"{kept.name}.sha256").unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 1
    assert call("generate.py", f"--network={path}", f"--outdir={tmp_path / 'b'}", *how)
    for seed in range(4):
        first, second = (tmp_path / name / f"{seed:06d}.png" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
