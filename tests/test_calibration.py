from __future__ import annotations

import gzip
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgecomp.calibration import (
    factory_samples,
    given_samples,
    npz_samples,
    read_text,
    run_module,
    sentence_samples,
    text_windows,
    to_tensors,
)
from edgecomp.errors import CalibrationError
from edgecomp.tensor import TensorSpec

SPECS = (TensorSpec("a", "float32", ("batch", 2)), TensorSpec("b", "int64", ("batch",)))


def letters(text: str, *, truncation: bool = False, max_length: int = 0, **_: Any) -> Mapping[str, Any]:
    """A tokenizer: a token for each character."""
    ids = [ord(letter) for letter in text]
    ids = ids[:max_length] if truncation else ids
    return {"input_ids": ids, "attention_mask": [1] * len(ids)}


@pytest.mark.parametrize("name", ["text.txt", "text.txt.gz"])
def test_text_is_read_plain_and_compressed(tmp_path: Path, name: str) -> None:
    data = "Grüße\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read_text(tmp_path / name) == "Grüße\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("missing.txt", None),
        ("latin.txt", b"\xe9"),
        ("plain.gz", b"no gzip"),
        ("cut.gz", gzip.compress(b"text" * 100, mtime=0)[:-9]),
        ("altered.gz", gzip.compress(b"text" * 100, mtime=0)[:10] + b"\xff" * 20),
    ],
)
def test_text_that_cannot_be_read_is_refused(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CalibrationError, match=name):
        read_text(tmp_path / name)


def test_windows_lie_next_to_each_other() -> None:
    assert text_windows("abcdefgh", letters, 3, 5, "text").tolist() == [[97, 98, 99], [100, 101, 102]]
    assert text_windows("abcdefgh", letters, 3, 1, "text").tolist() == [[97, 98, 99]]
    with pytest.raises(CalibrationError, match="one window of 9 tokens, got 8"):
        text_windows("abcdefgh", letters, 9, 1, "text")


def test_sentences_are_lines_cut_to_length() -> None:
    samples = sentence_samples("\n abc \n\nd\nefg\n", letters, 2, 2, "text")
    assert [sample["input_ids"].tolist() for sample in samples] == [[[97, 98]], [[100]]]
    assert samples[0]["attention_mask"].dtype == np.int64
    with pytest.raises(CalibrationError, match="at least one line"):
        sentence_samples(" \n\n", letters, 2, 2, "text")


def test_npz_gives_samples_of_batch_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(6).reshape(3, 2), b=np.arange(3))
    samples = npz_samples(tmp_path / "x.npz", SPECS, 2)
    assert [{name: value.tolist() for name, value in sample.items()} for sample in samples] == [
        {"a": [[0, 1]], "b": [0]},
        {"a": [[2, 3]], "b": [1]},
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((3, 2))}, r"missing \['b'\]"),
        ({"a": np.zeros((3, 2)), "b": np.zeros(3), "c": np.zeros(3)}, r"and no other; got \['c'\]"),
        ({"a": np.zeros((3, 2)), "b": np.zeros(2)}, "same number of samples"),
        ({"a": np.zeros((0, 2)), "b": np.zeros(0)}, "at least one"),
        ({"a": np.float32(1), "b": np.zeros(1)}, "at least one"),
        ({"a": np.array([{}]), "b": np.zeros(1)}, "without pickled objects"),
    ],
)
def test_npz_that_does_not_fit_the_model_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(CalibrationError, match=message):
        npz_samples(tmp_path / "x.npz", SPECS, 2)


def test_npz_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.npz", tmp_path / "x.npz"
    np.savez_compressed(whole, a=np.random.default_rng(0).random((50, 2)), b=np.arange(50))
    data = whole.read_bytes()
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    for bad in (b"", b"text", data[:100], data[:60] + b"\xff" * 200 + data[260:], single.read_bytes()):
        path.write_bytes(bad)
        with pytest.raises(CalibrationError, match=r"x\.npz must be a readable"):
            npz_samples(path, SPECS, 2)
    with pytest.raises(CalibrationError, match=r"missing\.npz"):
        npz_samples(tmp_path / "missing.npz", SPECS, 2)


def test_members_of_an_npz_that_are_no_arrays_count_as_absent(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a", "text")
        archive.writestr("b", "text")
    with pytest.raises(CalibrationError, match=r"an array for every input of the model; missing \['a', 'b'\]"):
        npz_samples(tmp_path / "x.npz", SPECS, 2)


@pytest.fixture
def samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("samplers")
    module.endless = lambda: ({"a": [[i, i]]} for i in iter(int, 1))  # type: ignore[attr-defined]
    module.empty = list  # type: ignore[attr-defined]
    module.arrays = lambda: [np.zeros(2)]  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "samplers", module)


@pytest.mark.usefixtures("samplers")
def test_a_factory_yields_samples_up_to_the_count() -> None:
    samples = factory_samples("samplers:endless", 3)
    assert len(samples) == 3
    assert isinstance(samples[0]["a"], np.ndarray)


@pytest.mark.usefixtures("samplers")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("samplers:empty", "at least one sample"),
        ("samplers:arrays", "a dictionary of input name to array, got ndarray"),
        ("samplers:number", "must yield samples, each a dictionary of input name to array, got int"),
        ("samplers:missing", "importable package.module:attribute"),
        ("no_such_module:f", "importable package.module:attribute"),
        (":f", "importable package.module:attribute"),
        ("samplers.py:f", r"without \.py: give samplers:FUNCTION$"),
        (".samplers:f", "importable package.module:attribute"),
        ("samplers:", "importable package.module:attribute"),
    ],
)
def test_factories_that_give_no_samples_are_refused(spec: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        factory_samples(spec, 3)


def test_a_header_that_is_no_header_is_refused(tmp_path: Path) -> None:
    header = b"{'descr':\n" + b" " * 54
    (tmp_path / "x.npz").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(CalibrationError, match=r"x\.npz must be a readable"):
        npz_samples(tmp_path / "x.npz", SPECS, 2)


def test_words_are_no_numbers() -> None:
    with pytest.raises(CalibrationError, match="input a must hold float32 values, got <U3"):
        to_tensors({"a": np.array(["one"]), "b": np.array([1])}, SPECS)


def test_samples_become_tensors_in_the_order_and_dtypes_of_the_inputs() -> None:
    a, b = to_tensors({"b": np.array([1]), "a": np.ones((1, 2))}, SPECS)
    assert (a.dtype, b.dtype) == (torch.float32, torch.int64)
    with pytest.raises(CalibrationError, match=r"missing \['b'\], got \['a'\]"):
        to_tensors({"a": np.ones((1, 2))}, SPECS)


def test_inputs_that_the_model_does_not_take_are_refused() -> None:
    layer = nn.Linear(2, 2)
    for batch in ([torch.ones(1, 3)], [torch.ones(1, 2, dtype=torch.float64)], [torch.ones(1, 2)] * 2):
        with pytest.raises(CalibrationError, match=r"fails on float"):
            run_module(layer, batch)


def test_samples_of_a_data_loader_a_function_and_lists() -> None:
    rows = [{"a": torch.full((2,), float(n), requires_grad=True).to(torch.bfloat16), "b": n} for n in range(5)]
    loaded = given_samples(torch.utils.data.DataLoader(rows, batch_size=2), 2)  # type: ignore[arg-type]
    assert [sample["a"].tolist() for sample in loaded] == [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]
    assert (loaded[0]["a"].dtype, loaded[0]["b"].dtype) == (np.float32, np.int64)
    (made,) = given_samples(lambda: iter([{"x": [[1.5, 2.0]], "y": [3], "z": np.float16(2), "mask": [True]}]), 9)
    assert {name: array.dtype.name for name, array in made.items()} == {
        "x": "float32",
        "y": "int64",
        "z": "float16",
        "mask": "bool",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": np.ones((3, 2))}, "got one dictionary alone: give a list of them"),
        (np.ones((3, 2)), "got ndarray: give a list"),
        (torch.ones(3, 2), "got Tensor: give a list"),
        (7, "got int: give a list"),
        ([], "must hold at least one sample, got none"),
        ([{"x": np.ones(2)}, (np.ones(2),)], r"sample 1 of calibration must be a dictionary .*got tuple: yield {name: value}"),
        (["hello"], r"got str: .*texts go in a file"),
        ([{"x": np.array(["a"], object)}], "x of sample 0 of calibration must be an array, .*got object array"),
        ([{"x": "hello"}], "x of sample 0 of calibration must be an array, .*got str"),
        ([{"x": [[1.0], [2.0, 3.0]]}], "x of sample 0 of calibration must be an array, .*got list"),
    ],
)
def test_samples_of_other_kinds_are_refused(given: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        given_samples(given, 9)
