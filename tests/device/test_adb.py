"""Android: the real adb client, against a stand-in for the phone (adb_standin.py)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import adb_standin
import pytest
from on_device import QUICK
from onnx_models import embedding_table, save_encoder

from edgecomp.bench.runner import run_benches
from edgecomp.cli import main


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an adb server of our own, beside whatever server this machine has."""
    home = tmp_path_factory.mktemp("adb-home")  # the client makes its key there
    environment = {"ANDROID_ADB_SERVER_PORT": str(free_port()), "HOME": str(home), "ANDROID_USER_HOME": str(home)}
    yield environment
    subprocess.run(["adb", "kill-server"], env={**os.environ, **environment}, capture_output=True, check=False)


@pytest.fixture(scope="module")
def phone(server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A connected stand-in's URL, and where its files are."""
    port, root = free_port(), tmp_path_factory.mktemp("phone").resolve()
    process = subprocess.Popen([sys.executable, adb_standin.__file__, str(port), str(root)])
    address = f"127.0.0.1:{port}"
    for _ in range(50):
        said = subprocess.run(
            ["adb", "connect", address], env={**os.environ, **server}, capture_output=True, text=True, check=True
        ).stdout
        if said.startswith("connected"):
            break
        time.sleep(0.2)
    yield f"adb://{address}", root
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def _server_of_our_own(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)


def test_a_phone_computes_what_this_machine_does(phone: tuple[str, Path], bundle: Path, tmp_path: Path) -> None:
    url, root = phone
    model = save_encoder(tmp_path / "m.onnx", embedding_table(), external=True)
    host, device = run_benches([model], QUICK, devices=["local", url], bundle=bundle)
    assert device.failure is None
    assert device.parity is not None
    assert device.parity.identical
    assert [output.sha256 for output in device.rounds[0].measurement.outputs] == [
        output.sha256 for output in host.rounds[0].measurement.outputs
    ]
    ours = root / "data/local/tmp/edgecomp"
    assert not list((ours / "runs").iterdir())
    assert not list((ours / "incoming").iterdir())
    assert len(list((ours / "objects").iterdir())) == 3  # bundle, artifact, inputs


def test_what_was_not_used_for_a_month_goes(phone: tuple[str, Path], bundle: Path, tmp_path: Path) -> None:
    url, root = phone
    objects = root / "data/local/tmp/edgecomp/objects"
    names = {}
    for name, rows in (("old", 3), ("new", 4)):
        before = set(objects.iterdir()) if objects.exists() else set()
        model = save_encoder(tmp_path / f"{name}.onnx", embedding_table()[:rows])
        run_benches([model], replace(QUICK, token_ids=3), devices=[url], bundle=bundle)
        (names[name],) = [path for path in set(objects.iterdir()) - before if (path / model.name).is_file()]
    month_ago = time.time() - 31 * 24 * 3600
    for path in objects.iterdir():
        os.utime(path, (month_ago, month_ago))
    os.utime(names["new"])  # as a session does that uses it
    (record,) = run_benches([tmp_path / "new.onnx"], replace(QUICK, token_ids=3), devices=[url], bundle=bundle)
    assert record.failure is None
    assert not names["old"].exists()
    assert names["new"].exists()
    # Everything that is left was used by that session: the bundle, the artifact, its inputs.
    assert len(list(objects.iterdir())) == 3
    assert all(path.stat().st_mtime > month_ago + 1 for path in objects.iterdir())


def test_a_phone_writes_what_this_machine_does(
    phone: tuple[str, Path], bundle: Path, fused_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, root = phone
    texts = []
    for device in ([], ["--device", url, "--bundle", str(bundle)]):
        assert main(["generate", str(fused_folder), "--prompt", "the quick brown fox", "-n", "12", "--json", *device]) == 0
        texts.append(json.loads(capsys.readouterr().out)["turns"][0]["text"])
    assert texts[0] == texts[1]
    assert not list((root / "data/local/tmp/edgecomp/runs").iterdir())


def test_doctor_over_adb(phone: tuple[str, Path], bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", phone[0], "--bundle", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architecture"] == "aarch64"
    assert found["folder"].endswith("/data/local/tmp/edgecomp")
    assert found["runs"] == [".onnx", ".ort", ".pte"]


def test_a_phone_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "m.onnx", embedding_table())
    (record,) = run_benches([model], QUICK, devices=["adb://SERIAL"], bundle=bundle)
    assert record.failure is not None
    assert "device 'SERIAL' not found" in record.failure
    assert "`adb devices` lists" in record.failure
