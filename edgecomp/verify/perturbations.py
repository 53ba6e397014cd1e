"""Inputs as the world brings them: noise, blur, JPEG's artifacts, typing mistakes, each at a stated strength and from one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecomp.errors import CalibrationError, ConfigError

Arrays = Mapping[str, np.ndarray]
SEED = 0

# Strength by default, the bounds of it, and what it counts.
STRENGTHS: dict[str, tuple[float, float, float, str]] = {
    "noise": (0.1, 0.0, 10.0, "of the input's standard deviation"),
    "blur": (1.0, 0.0, 50.0, "pixels (the Gaussian's sigma)"),
    "jpeg": (50.0, 1.0, 100.0, "of 100 (quality)"),
    "typos": (0.1, 0.0, 1.0, "of the words"),
}
_BLOCK = 8  # of JPEG
# ITU-T T.81, annex K.1: quantisation of luminance and chrominance at quality 50.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87),
        *(80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92),
        *(95, 98, 112, 100, 103, 99),
    ]
).reshape(_BLOCK, _BLOCK)
_CHROMINANCE = np.full((_BLOCK, _BLOCK), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# ITU-T T.871: red, green, blue to luminance and two differences of colour.
_COLOURS = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@dataclass(frozen=True)
class Perturbation:
    """What is done to inputs, and how strongly (`STRENGTHS`)."""

    name: str
    strength: float

    def __str__(self) -> str:
        """Name and strength, as a user gives them."""
        return f"{self.name}:{self.strength:g}"


def parse_perturbations(text: str) -> list[Perturbation]:
    """The perturbations of `noise,blur:2,typos:0.05`; without a strength the default's.

    Raises:
        ConfigError: an unknown name, or a strength out of its bounds.

    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, told = part.partition(":")
        if name not in STRENGTHS:
            raise ConfigError(f"a perturbation must be one of {', '.join(STRENGTHS)}, got {part!r}")
        default, least, most, unit = STRENGTHS[name]
        try:
            strength = float(told) if colon else default
        except ValueError:
            strength = float("nan")
        if not least <= strength <= most:
            raise ConfigError(f"the strength of {name} must be from {least:g} to {most:g} {unit}, got {told!r}")
        found.append(Perturbation(name, strength))
    return found


def perturbed_arrays(samples: Sequence[Arrays], perturbation: Perturbation, *, seed: int = SEED) -> Iterator[Arrays]:
    """The samples with `noise` on every input of floats, or `blur` or `jpeg` on those that are images.

    Images are `[batch, channels, height, width]` or `[batch, height, width]`; JPEG's 0 to 255 are the least and the largest value
    of all samples, and three channels are red, green and blue.

    Raises:
        CalibrationError: no input that it could be done to.

    """
    if perturbation.name == "typos":
        raise CalibrationError("typos are of a text, and change its inputs where they are made: see `typos`")
    axes = 1 if perturbation.name == "noise" else 3
    names = [name for name, value in samples[0].items() if np.asarray(value).dtype.kind == "f" and np.ndim(value) >= axes]
    if not names:
        kind = "floats" if axes == 1 else "images, [batch, channels, height, width] of floats"
        raise CalibrationError(
            f"{perturbation.name} needs an input of {kind}, and there is none, and text takes typos, from a text file"
        )
    ranges = {name: _spread([np.asarray(sample[name]) for sample in samples]) for name in names}
    random = np.random.default_rng(seed)
    return (
        {
            name: _changed(np.asarray(value), perturbation, ranges[name], random) if name in ranges else value
            for name, value in sample.items()
        }
        for sample in samples
    )


def _spread(arrays: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Standard deviation, least and largest value of all."""
    count = max(sum(array.size for array in arrays), 1)
    mean = sum(float(array.sum(dtype=np.float64)) for array in arrays) / count
    variance = sum(float(np.square(array.astype(np.float64) - mean).sum()) for array in arrays) / count
    return variance**0.5, min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)


def _changed(
    value: np.ndarray, perturbation: Perturbation, spread: tuple[float, float, float], random: np.random.Generator
) -> np.ndarray:
    deviation, least, largest = spread
    if perturbation.name == "noise":
        changed = value + random.standard_normal(value.shape) * (perturbation.strength * deviation)
    elif perturbation.name == "blur":
        changed = blur(value, perturbation.strength)
    else:
        scale = (largest - least) / 255 or 1.0
        changed = jpeg((value - least) / scale, perturbation.strength) * scale + least
    return changed.astype(value.dtype)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of `sigma` pixels over the last two axes, cut at 3 sigma, the border's pixels repeated beyond it."""
    radius = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / max(sigma, 1e-9)))
    weights /= weights.sum()
    result = images.astype(np.float64)
    for axis in (-1, -2):
        padding = [(0, 0)] * images.ndim
        padding[axis] = (radius, radius)
        padded = np.moveaxis(np.pad(result, padding, mode="edge"), axis, -1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis=-1)
        result = np.moveaxis(windows @ weights, -1, axis)
    return result


def jpeg(images: np.ndarray, quality: float) -> np.ndarray:
    """What baseline JPEG leaves of images of 0 to 255 (ITU-T T.81): blocks of 8 x 8 transformed, rounded to multiples, and back.

    The coding behind that loses nothing and is left out; colours are not sampled down (4:4:4). Tables by quality are those of the
    Independent JPEG Group: `5000 / q` per cent of the table below quality 50, `200 - 2 q` from there on.
    """
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    tables = [np.clip(np.floor((table * percent + 50) / 100), 1, 255) for table in (_LUMINANCE, _CHROMINANCE)]
    pixels = np.clip(np.round(images.astype(np.float64)), 0, 255)
    colour = images.ndim >= 4 and images.shape[-3] == 3
    if colour:
        pixels = np.einsum("ij,...jhw->...ihw", _COLOURS, pixels) + np.array([0, 128, 128])[:, None, None]
    height, width = images.shape[-2:]
    padding = [(0, 0)] * (images.ndim - 2) + [(0, -height % _BLOCK), (0, -width % _BLOCK)]
    padded = np.pad(pixels, padding, mode="edge") - 128
    blocks = padded.reshape(*padded.shape[:-2], padded.shape[-2] // _BLOCK, _BLOCK, padded.shape[-1] // _BLOCK, _BLOCK)
    transform = _cosines()
    spectrum = np.einsum("ui,...hiwj,vj->...huwv", transform, blocks, transform)
    steps = np.stack([tables[0], tables[1], tables[1]])[:, None, :, None, :] if colour else tables[0][None, :, None, :]
    rounded = np.round(spectrum / steps) * steps
    back = np.einsum("ui,...huwv,vj->...hiwj", transform, rounded, transform).reshape(padded.shape)[..., :height, :width] + 128
    if colour:
        back = np.einsum("ij,...jhw->...ihw", np.linalg.inv(_COLOURS), back - np.array([0, 128, 128])[:, None, None])
    return np.asarray(np.clip(np.round(back), 0, 255))


def _cosines() -> np.ndarray:
    """The orthonormal discrete cosine transform of 8 values."""
    positions = np.arange(_BLOCK)
    matrix = np.cos(np.pi * (2 * positions[None] + 1) * positions[:, None] / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)


def typos(text: str, part: float, *, seed: int = SEED) -> str:
    """A text in which that part of the words has one slip each: two letters exchanged, one left out, doubled, or its neighbour's.

    Lines stay lines, and words of fewer than three letters stay as they are.
    """
    random = np.random.default_rng(seed)
    return "\n".join(
        " ".join(_slip(word, random) if random.random() < part and len(word) >= 3 else word for word in line.split(" "))
        for line in text.split("\n")
    )


_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _slip(word: str, random: np.random.Generator) -> str:
    place = int(random.integers(len(word) - 1))
    slips: tuple[Callable[[], str], ...] = (
        lambda: word[:place] + word[place + 1] + word[place] + word[place + 2 :],
        lambda: word[:place] + word[place + 1 :],
        lambda: word[: place + 1] + word[place:],
        lambda: word[:place] + _neighbour(word[place], random) + word[place + 1 :],
    )
    return slips[int(random.integers(len(slips)))]()


def _neighbour(letter: str, random: np.random.Generator) -> str:
    """A key beside the letter's; the letter itself where it is on none of the rows."""
    for row in _KEYS:
        place = row.find(letter.lower())
        if place >= 0:
            near = row[max(place - 1, 0) : place] + row[place + 1 : place + 2]
            return near[int(random.integers(len(near)))]
    return letter
