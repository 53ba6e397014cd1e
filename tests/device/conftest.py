"""What the tests on devices need, made by `make test-device`; its environment variables say where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from on_device import given, left_on
from raspberry_pi import RaspberryPi


@pytest.fixture(scope="session")
def bundle() -> Path:
    """A bundle for aarch64."""
    return given("EDGECOMP_TEST_BUNDLE")


@pytest.fixture(scope="session")
def booted_pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaspberryPi]:
    image = given("EDGECOMP_TEST_PI")
    pi = RaspberryPi(image, tmp_path_factory.mktemp("pi"), image / "id_ed25519")
    yield pi
    pi.stop()


@pytest.fixture
def pi(booted_pi: RaspberryPi, monkeypatch: pytest.MonkeyPatch) -> Iterator[RaspberryPi]:
    """The stand-in, reached by its own configuration; whatever a test does, no session's folder and no program may be left."""
    monkeypatch.setenv("EDGECOMP_SSH_COMMAND", " ".join(booted_pi.ssh_command))
    yield booted_pi
    assert left_on(booted_pi) == []
