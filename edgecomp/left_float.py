"""What of a model stays float, by bytes and with the reason: nothing is left out of packing in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from edgecomp.context import Progress
from edgecomp.draft import Draft
from edgecomp.errors import ModelError
from edgecomp.layers import left_dense
from edgecomp.preflight import Preflight
from edgecomp.progress import listed
from edgecomp.size import LeftFloat, share_left_float
from edgecomp.tensor import Factor

WARN_SHARE = 0.1  # of the weights, above which it is said, and refused where that is asked for
VECTORS = "biases, norms and other vectors"
BUFFERS = "buffers"
_UNPACKED = "no pass of the recipe packs them"


def left_float(
    body: nn.Module,
    draft: Draft,
    found: Preflight,
    tensors: Mapping[str, Tensor],
    factors: Mapping[str, Factor] | None = None,
) -> list[LeftFloat]:
    """What stays float, the most bytes first.

    Args:
        body: the model that passes worked on.
        draft: what they made of it; what it still has as matrices is left.
        found: what the trace told.
        tensors: those that no method packed, as they are stored.
        factors: of the plans; those of the format `dense` are float.

    """
    parameters = {name: id(parameter) for name, parameter in body.named_parameters(remove_duplicate=False)}
    why = {name: reason for reason, names in left_dense(body).items() for name in names}
    groups: dict[str, list[tuple[str, int, int]]] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if id(tensor) in seen or not tensor.is_floating_point():
            continue
        seen.add(id(tensor))
        known = name in parameters or tensor.ndim < 2  # biases that passes add are no parameters of the model
        reason = _reason(name, tensor, draft, found, why) if known else BUFFERS
        groups.setdefault(reason, []).append((name, tensor.numel() if known else 0, tensor.nbytes))
    for name, factor in (factors or {}).items():
        if factor.format == "dense":
            groups.setdefault(_UNPACKED, []).append((name, factor.shape[0] * factor.shape[1], factor.packed_bytes))
    rows = [
        LeftFloat(reason, tuple(name for name, _, _ in held), sum(count for _, count, _ in held), sum(size for *_, size in held))
        for reason, held in groups.items()
    ]
    return sorted(rows, key=lambda row: -row.bytes)


def _reason(name: str, tensor: Tensor, draft: Draft, found: Preflight, why: Mapping[str, str]) -> str:
    layer = name.rpartition(".")[0]
    if tensor.ndim < 2:
        return VECTORS
    if layer in found.elsewhere:
        return f"read outside of their layers too, by {found.elsewhere[layer]}"
    if layer in draft.layers:
        return draft.left.get(draft.layers[layer].factor, _UNPACKED)
    if layer in why:
        return why[layer]
    if name in found.readers:
        return f"weights of no layer, read by {found.readers[name]}"
    return "weights of no layer"


def notice(rows: Sequence[LeftFloat], parameters: int) -> str | None:
    """What to say of more than `WARN_SHARE`; None for less."""
    share = share_left_float(rows, parameters)
    if share <= WARN_SHARE:
        return None
    parts = [f"{row.bytes:,} bytes, since {row.reason}: {listed(row.names)}" for row in rows if row.parameters][:5]
    return f"{share:.0%} of the weights stay float ({'; '.join(parts)})"


def tell_float(left: Sequence[LeftFloat], parameters: int, progress: Progress | None, *, strict: bool) -> None:
    """Say, or refuse, that much stays float; `progress` is None before the passes, where nothing is said yet.

    Raises:
        ModelError: it is refused.

    """
    message = notice(left, parameters)
    if message is not None and strict:
        raise ModelError(
            f"with --strict (strict=True) at most {WARN_SHARE:.0%} of the weights may stay float, but {message}. Change these "
            "parts of the model or the recipe, or leave --strict out"
        )
    if message is not None and progress is not None:
        progress.say(f"warning: {message}")


__all__ = ["BUFFERS", "VECTORS", "WARN_SHARE", "left_float", "notice", "tell_float"]
