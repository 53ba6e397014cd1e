"""Nothing is deleted that we did not make, no link is followed to where others' files are, and nothing temporary stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgecomp
from edgecomp.devices.build_bundle import build_bundle
from edgecomp.errors import OutputError
from edgecomp.files import replace_file
from edgecomp.resume import Kept, discard, open_work

RECIPE = {"version": 1, "passes": [{"method": "lut-kmeans", "bits": 2, "refits": 0, "weighting": "none"}]}
KEY, OTHER = "a" * 64, "b" * 64
RESULT = Kept({"x": np.zeros(2, np.float32)}, {})


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A store of somebody else's, whose folders have digests as names, as ours do."""
    (tmp_path / "theirs" / OTHER).mkdir(parents=True)
    (tmp_path / "theirs" / OTHER / "important").write_text("theirs")
    return tmp_path / "theirs"


def test_a_work_folder_that_is_a_link_is_refused(tmp_path: Path, theirs: Path) -> None:
    before = tree(theirs)
    (tmp_path / "work").symlink_to(theirs)
    with pytest.raises(OutputError, match=r"work must be a folder.*is a link to .*theirs"):
        open_work(tmp_path / "work", KEY)
    with pytest.raises(OutputError, match="is a link to"):
        discard(tmp_path / "work")
    assert tree(theirs) == before


def test_a_key_that_is_a_link_is_refused(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / KEY).symlink_to(theirs)
    with pytest.raises(OutputError, match="is a link to"):
        open_work(tmp_path / "work", KEY)


def test_a_link_that_comes_later_is_refused(tmp_path: Path, theirs: Path) -> None:
    work = open_work(tmp_path / "work", KEY).work
    before = tree(theirs)
    (tmp_path / "work").symlink_to(theirs)
    with pytest.raises(OutputError, match="is a link to"):
        work.keep("a", RESULT)
    assert tree(theirs) == before


def test_folders_that_are_named_like_ours_stay(tmp_path: Path, theirs: Path) -> None:
    """Where somebody gives a folder of theirs as the work folder."""
    opened = open_work(theirs, KEY)
    opened.work.keep("a", RESULT)
    assert (theirs / OTHER / "important").read_text() == "theirs"
    discard(theirs)
    assert tree(theirs) == {OTHER, f"{OTHER}/important"}


def test_what_we_kept_goes(tmp_path: Path) -> None:
    open_work(tmp_path / "work", OTHER).work.keep("a", RESULT)
    (tmp_path / "work" / OTHER / f".{'c' * 32}.safetensors.k3q_x9zz").write_bytes(b"of a process that was killed")
    open_work(tmp_path / "work", KEY).work.keep("a", RESULT)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {KEY}
    discard(tmp_path / "work")
    assert not (tmp_path / "work").exists()


def save(target: Path) -> None:
    edgecomp.compress("tiny_models:tied_tokens", RECIPE, "tiny_models:tokens").save(target, overwrite=True)


def test_a_checkpoint_replaces_a_checkpoint_alone(tmp_path: Path) -> None:
    target = tmp_path / "m.ec"
    save(target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"must hold a checkpoint and nothing else to be replaced, found notes\.txt"):
        save(target)
    assert (target / "notes.txt").read_text() == "mine"
    (target / "notes.txt").unlink()
    save(target)


def test_a_folder_with_another_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    """Web applications have a manifest.json as well."""
    target = tmp_path / "app"
    target.mkdir()
    (target / "manifest.json").write_text(json.dumps({"name": "app"}))
    with pytest.raises(OutputError, match="only a checkpoint may be replaced"):
        save(target)
    assert tree(target) == {"manifest.json"}


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    save(tmp_path / "real.ec")
    before = tree(tmp_path / "real.ec")
    (tmp_path / "link.ec").symlink_to("real.ec")
    save(tmp_path / "link.ec")
    assert tree(tmp_path / "real.ec") == before
    assert not (tmp_path / "link.ec").is_symlink()


@pytest.mark.parametrize("names", [None, ["a.so"]])
def test_a_device_bundle_replaces_a_device_bundle_alone(tmp_path: Path, names: list[str] | None) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "important").write_text("mine")
    if names is not None:
        (target / "bundle.json").write_text(json.dumps({"files": names}))
    source = tmp_path / "source"
    (source / "runtimes").mkdir(parents=True)
    (source / "runtimes" / "CMakeLists.txt").write_text("")
    with pytest.raises(OutputError, match="device bundle"):
        build_bundle("aarch64", source, target, overwrite=True)
    assert (target / "important").read_text() == "mine"


def test_only_a_file_is_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "null"):
        with (
            pytest.raises(OutputError, match="must be a file to be replaced by one"),
            replace_file(tmp_path / name, overwrite=True),
        ):
            pass
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_temporary_folders_go_when_the_command_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import os, signal, tempfile, time, edgecomp.cli.doctor as doctor\n"
        "from edgecomp.cli import main\n"
        "from edgecomp.devices import open_device\n"
        "def run(arguments):\n"
        "    with open_device('local') as device:\n"
        f"        device.folder; os.kill(os.getpid(), {int(number)}); time.sleep(60)\n"
        "doctor.run = run\n"
        "main(['doctor'])\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run where it is ignored, as under nohup
    )
    assert done.returncode == 128 + number, done.stderr
    assert tree(tmp_path) == set()


def test_sockets_go_whatever_the_client_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecomp.devices import open_device

    monkeypatch.setenv("EDGECOMP_SSH_COMMAND", str(tmp_path / "no-such-client"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), open_device("ssh://nobody@nowhere"):
        assert any(path.name.startswith("ec-ssh-") for path in tmp_path.iterdir())
        raise ZeroDivisionError
    assert tree(tmp_path) == set()
