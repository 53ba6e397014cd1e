"""A small convolutional network, trained here, compressed and exported to ONNX: accuracy lost and bytes at several widths.

    python benchmarks/cnn.py --data-dir DATA --model resnet20.pt [--recipes RECIPE ...] [--split valid] [--json]

ResNet-20 (He et al., 2015, arXiv:1512.03385, of the CIFAR kind: 272 thousand parameters; its stem has a stride of 2, so that it
trains in minutes on two cores) on Fashion-MNIST, whose four idx files DATA/fashion-mnist holds. The first 55,000 training images
train it, the other 5,000 are `valid`, for the choice of settings; accuracy is reported on the 10,000 of `test`. The trained
weights are kept in the file that --model names, and used again where it exists. Calibration: 16 batches of 64 training images,
without labels. Accuracy is that of the exported file with the library.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import torch
from records import add_json_option, print_rows
from torch import Tensor, nn

from edgecomp.checkpoint import CompressedModel
from edgecomp.compression import compress
from edgecomp.exported.session import AUTO, OnnxModel
from edgecomp.exporters import export
from edgecomp.inspect.model import inspect_model

TRAINING_IMAGES = 55_000
BATCH = 128
HEIGHT_RATE = 0.2  # of the learning rate
CALIBRATION_BATCHES, CALIBRATION_IMAGES = 16, 64


class Block(nn.Module):
    """Two 3x3 convolutions with norms, and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Float32 `[batch, outputs, height / stride, width / stride]`."""
        inner = self.norm1(self.conv1(x)).relu()
        y: Tensor = self.norm2(self.conv2(inner)) + self.around(x)
        return y.relu()


class ResNet20(nn.Module):
    """Three stages of three blocks, 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        sizes = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits `[batch, 10]` of float32 `[batch, 1, 28, 28]`."""
        y: Tensor = self.head(self.blocks(self.stem(image)).mean(dim=(2, 3)))
        return y


def read_split(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    """Images float32 `[n, 1, 28, 28]` of mean about 0, and labels int64 `[n]`, of an idx pair."""

    def payload(file: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((folder / file).read_bytes()), np.uint8, offset=header)

    pixels = payload(f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = payload(f"{name}-labels-idx1-ubyte.gz", 8)
    return (torch.from_numpy(pixels.astype(np.float32)) / 255 - 0.2860) / 0.3530, torch.from_numpy(labels.astype(np.int64))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image perhaps mirrored, and the batch moved by up to 2 pixels."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    top, left = torch.randint(5, (2,), generator=generator).tolist()
    padded = nn.functional.pad(images, (2, 2, 2, 2), value=float(images.min()))
    return padded[:, :, top : top + 28, left : left + 28]


def train(images: Tensor, labels: Tensor, epochs: int) -> ResNet20:
    """Train from scratch by SGD with one cycle of the learning rate; the same inputs give the same weights."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = ResNet20().to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // BATCH)
    optimiser = torch.optim.SGD(model.parameters(), lr=HEIGHT_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, HEIGHT_RATE, total_steps=steps, pct_start=0.3)
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(images), generator=generator)[: steps // epochs * BATCH]
        for chosen in order.split(BATCH):
            batch = augmented(images[chosen], generator).contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(model(batch), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        mean = total / (steps // epochs)
        print(f"epoch {epoch + 1} of {epochs}: loss {mean:.4f}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return model.to(memory_format=torch.contiguous_format).eval()


def trained(path: Path, images: Tensor, labels: Tensor, epochs: int) -> ResNet20:
    """The model whose weights `path` holds; trained and written there where there is no such file."""
    if not path.exists():
        torch.save(train(images, labels, epochs).state_dict(), path)
    model = ResNet20()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Per cent of the images that are classified rightly."""
    return float((logits.argmax(dim=1) == labels).double().mean()) * 100


def exported_logits(compressed: CompressedModel, images: Tensor) -> Tensor:
    """What the exported model gives, run with the library: `[n, 10]`."""
    with tempfile.TemporaryDirectory() as folder:
        files = export(compressed, "onnx", Path(folder) / "model.onnx").files
        session = OnnxModel(files[0], AUTO, 2)
        logits = [next(iter(session.run({"image": batch.numpy()}).values())) for batch in images.split(500)]
    return torch.from_numpy(np.concatenate(logits))


def calibration(images: Tensor) -> Iterator[dict[str, np.ndarray]]:
    """Batches of training images."""
    for batch in images[: CALIBRATION_BATCHES * CALIBRATION_IMAGES].split(CALIBRATION_IMAGES):
        yield {"image": batch.numpy()}


def main() -> None:
    """Parse the command line, train where needed, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with fashion-mnist/*.gz")
    parser.add_argument("--model", type=Path, required=True, help="trained weights; made where absent")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--recipes", nargs="+", default=["jlcm-4bit", "jlcm-3bit", "jlcm-2bit"])
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--split", choices=["valid", "test"], default="test", help="choose settings on valid, report test")
    add_json_option(parser)
    arguments = parser.parse_args()
    images, labels = read_split(arguments.data_dir / "fashion-mnist", "train")
    model = trained(arguments.model, images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES], arguments.epochs)
    held = images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:]
    if arguments.split == "test":
        held = read_split(arguments.data_dir / "fashion-mnist", "t10k")
    with torch.inference_mode():
        original = accuracy(torch.cat([model(batch) for batch in held[0].split(500)]), held[1])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows: list[dict[str, Any]] = [
        {"recipe": "float32", "bits_per_weight": 32.0, "packed_bytes": 4 * parameters, "accuracy": round(original, 2)}
    ]
    for recipe in arguments.recipes:
        started = time.monotonic()
        compressed = compress(
            model, recipe, calibration(images), overrides=arguments.overrides, quiet=False, samples=CALIBRATION_BATCHES
        )
        seconds = time.monotonic() - started
        size = inspect_model(compressed, recipe).size
        got = accuracy(exported_logits(compressed, held[0]), held[1])
        row = {
            "recipe": Path(recipe).stem,
            "overrides": " ".join(arguments.overrides),
            "bits_per_weight": round(size.bits_per_weight, 3),
            "packed_bytes": size.packed_bytes,
            "accuracy": round(got, 2),
            "lost": round(original - got, 2),
            "split": arguments.split,
            "compress_seconds": round(seconds, 1),
        }
        rows.append(row)
    print_rows("cnn", rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
