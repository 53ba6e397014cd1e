"""What passes learn from calibration: statistics of the inputs of layers, and of the later stages of their plans.

| kind | of inputs X `[M, K]`, in the order of the matrix's columns | result |
| --- | --- | --- |
| `energy` | the diagonal of XᵀX / M | float32 `[K]` |
| `gram` | XᵀX / M | float32 `[K, K]` |

A convolution's X has a row for each output position and group: the patch that it sees, with zeros in the padding channels. Its
energy is that of the input channels, each repeated once per tap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgecomp.columns import ConvColumns
from edgecomp.draft import Use
from edgecomp.errors import CalibrationError

StatisticKind = Literal["energy", "gram"]


@dataclass(frozen=True)
class Site:
    """An input that is looked at.

    Args:
        use: the layer, term and stage that it goes to.
        columns: the order of its columns, for a convolution.
        before: what the stages before it make of the layer's input; None where it is the layer's input itself.

    """

    use: Use
    columns: ConvColumns | None = None
    before: Callable[[Tensor], Tensor] | None = None


class InputStatistics:
    """Sums over the inputs of some sites; sites that are given the same tensor, as q, k and v are, share one sum.

    Args:
        kind: the statistic.
        sites: where to look; no embedding, whose inputs are no real numbers.

    """

    def __init__(self, kind: StatisticKind, sites: Sequence[Site]) -> None:
        self._kind = kind
        self._sites: dict[str, list[Site]] = {}
        for site in sites:
            self._sites.setdefault(site.use.layer, []).append(site)
        self._sums: dict[tuple[Use, ...], tuple[Tensor, int]] = {}  # by the uses that share a sum: the sum, and its rows
        self._latest: _Latest | None = None  # uses of one tensor come one after the other

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Look at what the modules (by layer name) are given, as long as the context lasts; for one run of the model."""
        handles = []
        for name in self._sites:

            def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], name: str = name) -> None:
                self._record(name, arguments[0] if arguments else next(iter(keywords.values())))

            handles.append(modules[name].register_forward_pre_hook(hook, with_kwargs=True))
        try:
            yield
            self._settle()
        finally:
            for handle in handles:
                handle.remove()

    def results(self) -> dict[Use, Tensor]:
        """The statistic of each site that was reached; sites that always share their input share the tensor.

        Raises:
            CalibrationError: a site's inputs are not finite.

        """
        sums_of: dict[Use, list[tuple[Use, ...]]] = {}
        for uses, (total, rows) in self._sums.items():
            _require_finite(uses[0].layer, total)
            for use in uses if rows else ():
                sums_of.setdefault(use, []).append(uses)
        means: dict[tuple[tuple[Use, ...], ...], Tensor] = {}
        results = {}
        for use, keys in sums_of.items():
            shared = tuple(keys)
            if shared not in means:
                total = torch.stack([self._sums[key][0] for key in keys]).sum(dim=0) if len(keys) > 1 else self._sums[keys[0]][0]
                means[shared] = total / sum(self._sums[key][1] for key in keys)
            results[use] = self._finished(use, means[shared])
        return results

    def _finished(self, use: Use, mean: Tensor) -> Tensor:
        columns = next(site.columns for site in self._sites[use.layer] if site.use == use)
        if self._kind == "gram":
            return mean
        return mean.float() if columns is None else columns.of_channels(mean.float())

    def _record(self, layer: str, x: Tensor) -> None:
        for site in self._sites[layer]:
            value = x if site.before is None else site.before(x)
            if self._latest is not None and self._latest.is_of(value, site.columns):
                self._latest.uses.append(site.use)
                continue
            self._settle()
            with torch.no_grad():  # at once: what runs next may change the input in place
                total, rows = (_energy if self._kind == "energy" else _gram)(value, site.columns)
            self._latest = _Latest(value, _version(value), site.columns, total, rows, [site.use])

    def _settle(self) -> None:
        """Add the latest input to the sum of those that were given it."""
        if self._latest is None:
            return
        total, rows, key = self._latest.total, self._latest.rows, tuple(self._latest.uses)
        self._latest = None
        if key in self._sums:
            self._sums[key][0].add_(total)
            total, rows = self._sums[key][0], rows + self._sums[key][1]
        self._sums[key] = (total, rows)


@dataclass(frozen=True)
class _Latest:
    """An input, what was summed over it, and the uses that were given it so far."""

    value: Tensor
    version: int | None
    columns: ConvColumns | None
    total: Tensor
    rows: int
    uses: list[Use]

    def is_of(self, value: Tensor, columns: ConvColumns | None) -> bool:
        """Whether a site is given the same tensor, and nothing changed that in place since."""
        same = self.value is value and self.version is not None and self.version == _version(value)
        return same and self.columns == columns


def _version(value: Tensor) -> int | None:
    """Counts changes in place; PyTorch does not count those of tensors of its inference mode."""
    return None if value.is_inference() else value._version


def _energy(x: Tensor, columns: ConvColumns | None) -> tuple[Tensor, int]:
    axis = x.ndim - (1 if columns is None else 3)
    squares = x.to(torch.float64).square().sum(dim=[other for other in range(x.ndim) if other != axis])
    return squares, x.numel() // x.shape[axis]


def _gram(x: Tensor, columns: ConvColumns | None) -> tuple[Tensor, int]:
    rows = x.reshape(-1, x.shape[-1]) if columns is None else columns.patches(x)
    return rows.T @ rows, len(rows)


def _require_finite(layer: str, statistic: Tensor) -> None:
    if not torch.isfinite(statistic).all():
        raise CalibrationError(f"calibration must give finite activations, but the inputs of {layer} hold NaN or infinity")
