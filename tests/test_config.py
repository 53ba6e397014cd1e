from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecomp.config import LayerMatch, apply_override, read_mapping, require_patterns_used
from edgecomp.errors import ConfigError


def test_a_layer_matches_by_name_and_kind() -> None:
    group = LayerMatch(match=["encoder.*.fc?", "head"], ops=["linear"])
    assert group.matches("encoder.3.fc1", "linear")
    assert group.matches("head", "linear")
    assert not group.matches("encoder.3.fc10", "linear")
    assert not group.matches("Head", "linear")
    assert not group.matches("head", "gather")
    assert LayerMatch().matches("anything", "conv")


def test_patterns_that_fit_no_layer_are_refused_with_some_that_exist() -> None:
    require_patterns_used(["a.*"], ["a.b"], "skip")
    with pytest.raises(ConfigError, match=r"skip: .*'c\*' fits none.*a\.b"):
        require_patterns_used(["a.*", "c*"], ["a.b"], "skip")


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("passes.0.bits=3", ("passes", 0, "bits"), 3),
        ("passes.0.ratio = 0.5", ("passes", 0, "ratio"), 0.5),
        ("compute=float", ("compute",), "float"),
        ('name="a b"', ("name",), "a b"),
        ("quiet=true", ("quiet",), True),
        ("passes.0.skip=['head', 'a=b']", ("passes", 0, "skip"), ["head", "a=b"]),
        ("deep.er.key=1", ("deep", "er", "key"), 1),
        ("passes.0={method = 'x'}", ("passes", 0), {"method": "x"}),
        ("name=", ("name",), ""),
    ],
)
def test_overrides_are_typed_as_in_toml(assignment: str, path: tuple[Any, ...], value: Any) -> None:
    settings: Any = {"name": "old", "passes": [{"bits": 4}]}
    apply_override(settings, assignment)
    for key in path:
        settings = settings[key]
    assert settings == value
    assert type(settings) is type(value)


@pytest.mark.parametrize(
    "assignment",
    ["passes.0.bits", "=3", "passes.1.bits=3", "passes.x.bits=3", "passes.-1=3", "name.first=3", f"passes.{'9' * 5000}=3"],
)
def test_overrides_that_lead_nowhere_are_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        apply_override({"name": "old", "passes": [{"bits": 4}]}, assignment)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.toml", "version = ", "valid TOML"),
        ("r.json", "{", "valid JSON"),
        ("r.json", "[1]", "table of settings, got list"),
        ("r.toml", None, "readable"),
        ("r.toml", b"\xff\xfe", "readable"),
        ("r.json", "[" * 100_000, "valid JSON"),
        ("r.toml", "a = " + "[" * 100_000, "valid TOML"),
        ("r.json", "9" * 5000, "valid JSON"),
        ("r.toml", "a = " + "9" * 5000, "valid TOML"),
    ],
)
def test_files_that_hold_no_settings_are_refused(tmp_path: Path, name: str, text: str | bytes | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / name)
