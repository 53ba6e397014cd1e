"""Calibration text that a language model writes itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor, nn

import edgecomp
from edgecomp import written
from edgecomp.cli import main
from edgecomp.errors import CalibrationError, ConfigError
from edgecomp.models import LoadedModel, load_model
from edgecomp.models.bound import body_of
from edgecomp.progress import ProgressBar
from edgecomp.resume import Work
from edgecomp.written import repeated_share, written_windows

CPU = torch.device("cpu")
PLAIN = {"version": 1, "passes": [{"method": "lut-kmeans", "bits": 4}]}


def write(model: LoadedModel, count: int = 5, length: int = 12, seed: int = 0, work: Work | None = None) -> np.ndarray:
    return written_windows(
        model, count=count, length=length, seed=seed, device=CPU, progress=ProgressBar(quiet=True), work=work or Work()
    )


def test_windows_are_the_seeds_own_and_start_with_any_token_but_a_special_one(llama_folder: str) -> None:
    model = load_model(llama_folder)
    windows = write(model, count=40)
    assert windows.shape == (40, 12) and windows.dtype == np.int64
    np.testing.assert_array_equal(windows, write(model, count=40))
    assert (windows != write(model, count=40, seed=1)).any()
    assert not {*windows[:, 0]} & {*getattr(model.tokenizer, "all_special_ids")}  # noqa: B009 - the protocol has less
    assert windows.max() < len(body_of(model.module).get_input_embeddings().weight)  # type: ignore[operator]
    assert all(parameter.dtype == torch.float32 for parameter in model.module.parameters())


def test_tokens_are_drawn_from_the_models_own_distribution(llama_folder: str) -> None:
    """Whatever the cache holds: the mean log-likelihood of what is drawn is the negative entropy, and chance is farther from it."""
    model = load_model(llama_folder)
    with torch.no_grad():
        model.module.get_parameter("body.model.norm.weight").mul_(4)  # or a random model's distribution would be nearly even
    windows = torch.from_numpy(write(model, count=64, length=24))
    with torch.no_grad():
        scores = torch.log_softmax(model.module(windows, torch.ones_like(windows))[0], dim=-1)[:, :-1]
    entropy = float(-(scores.exp() * scores).sum(dim=-1).mean())
    drawn = float(-scores.gather(-1, windows[:, 1:, None]).mean())
    chance = float(-scores.mean())
    assert abs(drawn - entropy) < 0.2 * abs(chance - entropy)


def test_models_without_a_start_token_a_tokenizer_or_a_cache_write_too(llama_folder: str) -> None:
    model = load_model(llama_folder)
    nameless = replace(model, tokenizer=None)
    assert write(nameless, count=3).shape == (3, 12)

    class Forgetful(nn.Module):
        """A language model that returns no keys and values."""

        def __init__(self, body: Any) -> None:
            super().__init__()
            self.body = body

        def get_input_embeddings(self) -> nn.Module:
            table: nn.Module = self.body.get_input_embeddings()
            return table

        def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool, past_key_values: None) -> Any:
            assert past_key_values is None
            return SimpleNamespace(logits=self.body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits)

    forgetful = replace(model, module=type(model.module)(Forgetful(body_of(model.module))))
    np.testing.assert_array_equal(write(forgetful), write(model))


def test_what_is_kept_is_not_written_again(llama_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_AT_ONCE", {"cpu": 2})
    model, work = load_model(llama_folder), Work(tmp_path / "kept")
    whole = write(model)
    calls: list[int] = []
    drawn: Callable[..., np.ndarray] = written._Writer.write

    def counted(self: Any, *given: int) -> np.ndarray:
        calls.append(given[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return drawn(self, *given)

    monkeypatch.setattr(written._Writer, "write", counted)
    with pytest.raises(KeyboardInterrupt):
        write(model, work=work)
    np.testing.assert_array_equal(write(model, work=work), whole)
    assert calls == [0, 1, 2, 2]


def test_repeated_grams_are_counted() -> None:
    assert repeated_share(np.arange(20)) == 0
    assert repeated_share(np.array([1, 2, 3])) == 0
    assert repeated_share(np.zeros(20)) == 16 / 17


def test_a_model_that_repeats_itself_is_refused(llama_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "repeated_share", lambda window: float(window[0] % 2))
    windows = write(load_model(llama_folder), count=6)
    assert len(windows) == 6 and not (windows[:, 0] % 2).any()
    monkeypatch.setattr(written, "repeated_share", lambda window: 0.6)
    with pytest.raises(CalibrationError, match=r"18 of 18 windows more than 50% of the 4-grams repeat .*--calibration FILE"):
        write(load_model(llama_folder), count=6)


def test_logits_that_are_not_finite_are_refused(llama_folder: str) -> None:
    model = load_model(llama_folder)
    model = replace(model, module=model.module.float())
    with torch.no_grad():
        next(iter(model.module.parameters())).mul_(float("nan"))
    with pytest.raises(CalibrationError, match="logits must be finite"):
        write(model)


def test_other_models_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r'"self" is for language models, .* of kind generic'):
        edgecomp.compress(tiny_models.convolutional(), PLAIN, "self")


def test_the_users_text_is_mixed_with_the_models_own(llama_folder: str, text_file: str) -> None:
    def told(calibration: str, share: float | None = None) -> dict[str, Any]:
        made = edgecomp.compress(
            llama_folder, PLAIN, calibration, samples=8, sequence_length=12, self_share=share, exportable=False
        )
        found: dict[str, Any] = made.provenance["calibration"]
        return found

    assert told("self")["samples"] == told("self")["self_written"] == 8
    mixed = told(text_file, 0.25)
    assert (mixed["samples"], mixed["self_written"], mixed["source"]) == (8, 2, text_file)
    assert mixed["sha256"] != told(text_file)["sha256"]
    for calibration, share in ((text_file, 1.0), ("self", 0.5), (text_file, 0.01)):
        with pytest.raises(ConfigError, match="self_share"):
            told(calibration, share)


def test_the_command_line_keeps_what_is_written(llama_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, *more: str) -> int:
        options = ["--calibration", "self", "--samples", "4", "--sequence-length", "12", "--quiet", "--no-export-check"]
        return main(["compress", llama_folder, *options, "-o", str(tmp_path / name), *more])

    assert run("one.ec") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one.ec"]
    assert run("two.ec", "--written", str(tmp_path / "text")) == 0 and (tmp_path / "text").is_dir()
    assert run("three.ec", "--written", str(tmp_path / "text")) == 0
    assert main(["compress", llama_folder, "--like", str(tmp_path / "one.ec"), "-o", str(tmp_path / "four.ec"), "--quiet"]) == 0
    capsys.readouterr()
