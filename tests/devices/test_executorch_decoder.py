"""ExecuTorch's side of the measuring program's tests and texts of language models: a toy whose cache lies in a buffer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgecomp.devices import open_device
from edgecomp.devices.session import Session
from edgecomp.errors import CheckpointError, ConfigError, ModelError

VOCABULARY, SIZE, CONTEXT = 61, 8, 32
TOKENS = [3, 7, 1, 50, 22, 9, 60, 4, 17]


class Toy(nn.Module):
    """Each token's logits are a linear function of the mean of all tokens up to it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, SIZE)
        self.head = nn.Linear(SIZE, VOCABULARY, bias=False)
        self.register_buffer("cache", torch.zeros(1, CONTEXT, SIZE))

    def forward(self, tokens: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """tokens int64 [1, S], start int64 [1] -> float32 [1, S, VOCABULARY]."""
        places = start + torch.arange(tokens.shape[1])
        self.cache.index_copy_(1, places, self.table(tokens))
        held = (torch.arange(CONTEXT)[None, :] <= places[:, None]).float()
        written = (torch.arange(CONTEXT) <= places[-1])[:, None]  # a program's buffer begins with anything
        cache = torch.where(written, self.cache[0], torch.zeros(()))
        return self.head((held @ cache) / (places[:, None] + 1))[None]


@pytest.fixture(scope="module")
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def program(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, which takes five tokens at once at most."""
    from executorch.exir import to_edge_transform_and_lower

    path = tmp_path_factory.mktemp("toy") / "toy.pte"
    inputs = (torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with torch.no_grad():
        exported = torch.export.export(toy, inputs, dynamic_shapes=({1: torch.export.Dim("s", min=1, max=5)}, None))
    path.write_bytes(to_edge_transform_and_lower(exported).to_executorch().buffer)
    return path


@torch.no_grad()
def logits(toy: Toy, tokens: list[int]) -> np.ndarray:
    """Of what follows them."""
    found: np.ndarray = toy(torch.tensor([tokens]), torch.zeros(1, dtype=torch.long))[0, -1].numpy()
    return found


def asked(program: Path, action: str, **keys: object) -> list[tuple[str, object]]:
    return [("action", action), ("artifact", program), ("file", program), ("threads", 1), ("context", CONTEXT), *keys.items()]


@pytest.mark.parametrize("step", [1, 4, 9])
@pytest.mark.parametrize("depth", [0, 2])
def test_logits_are_those_of_pytorch(toy: Toy, program: Path, tmp_path: Path, step: int, depth: int) -> None:
    np.save(tmp_path / "tokens.npy", np.array(TOKENS))
    lines = asked(program, "measure", step=step, depth=depth, min_iterations=3, output_folder=".")
    with open_device("local") as device:
        answer = Session(device).ask(program, [*lines, ("input", f"tokens={tmp_path}/tokens.npy")], 60)
        device.pull("output-0.npy", tmp_path / "logits.npy")
    assert len(answer["measurement"]["samples_ns"]) == 3
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), logits(toy, TOKENS), rtol=1e-5, atol=1e-6)


def test_text_is_that_of_pytorch(toy: Toy, program: Path) -> None:
    expected = list(TOKENS)
    for _ in range(6):
        expected.append(int(logits(toy, expected).argmax()))
    with open_device("local") as device:
        conversation = Session(device).converse(program, asked(program, "generate"), 60)
        try:
            conversation.hear()
            for keep, given in ((0, TOKENS), (4, TOKENS[4:])):
                conversation.say(f"{keep} 6 {' '.join(map(str, given))}\n\n")
                assert conversation.hear()["prompt"]["tokens"] == len(given)
                assert [conversation.hear()["token"] for _ in range(6)] == expected[len(TOKENS) :]
                assert conversation.hear()["turn"]["tokens"] == 6
            assert conversation.finish()["generation"]["turns"] == 2
        finally:
            conversation.end()


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("0 1 x\n\n", "asked for by numbers"),
        ("0 1\n\n", "give at least one"),
        ("5 1 2\n\n", "keep at most the 0 tokens"),
        (f"0 1 {' '.join(['1'] * 33)}\n\n", "32 tokens at most"),
    ],
)
def test_turns_that_make_no_sense(program: Path, turn: str, message: str) -> None:
    with open_device("local") as device:
        conversation = Session(device).converse(program, asked(program, "generate"), 60)
        try:
            conversation.hear()
            conversation.say(turn)
            with pytest.raises((ConfigError, ModelError), match=message):
                conversation.hear()
        finally:
            conversation.end()


def test_another_program(tied_program: Path) -> None:
    with open_device("local") as device:
        session = Session(device)
        lines = [*asked(tied_program, "describe"), ("step", 1), ("library", session.own_library(tied_program))]
        with pytest.raises(CheckpointError, match="no language model with a cache"):
            session.ask(tied_program, lines, 60)
