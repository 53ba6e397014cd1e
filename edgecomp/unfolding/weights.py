"""Parameters that a forward multiplies by itself: plain layers of theirs, and what stands in their place.

A module of one's own may read `x @ self.w`, `F.linear(x, self.embed.weight)` or, as a subclass of a layer, `self.weight`. Which
operators read a parameter is seen in the graph of a trace (`products`). Where all of them are products, look-ups or convolutions
with the matrix as it is or transposed, the parameter becomes that of a plain layer beside it, and a `WeightOf` takes its name: it
answers as the parameter would, and each of these operators, given one, runs the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

from edgecomp.graph import live_nodes, path_of
from edgecomp.unfolding.plain import linear, shared, table

_FEWEST = 512  # weights of a parameter that is worth it
_MOST_PARTS = 4096  # of a transposed convolution
_CONVOLUTIONS: dict[str, type[nn.Module]] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
}
# Arguments of an operator that convolves, behind its input, weight and bias.
_ORDER = ("stride", "padding", "dilation", "groups")
_TRANSPOSED_ORDER = ("stride", "padding", "output_padding", "groups", "dilation")
_aten = torch.ops.aten


class WeightOf:
    """Stands in the place of a parameter whose layers are submodules of the module that had it.

    Args:
        owner: that module.
        name: of the parameter.
        use: how it is used, of `products`.
        turned: whether this is its transpose.

    """

    def __init__(self, owner: nn.Module, name: str, use: Mapping[str, Any], *, turned: bool = False) -> None:
        self._owner, self._name, self._use, self._turned = owner, name, use, turned

    @property
    def tensor(self) -> Tensor:
        """The values, dequantised where they are packed."""
        kind = next(kind for kind in ("product", "table", "convolution") if self._use.get(kind))
        weight: Tensor = self._layer(kind).weight  # type: ignore[assignment]
        return weight.T if self._use.get("turned", False) != self._turned else weight

    @property
    def dtype(self) -> torch.dtype:
        """What its layers compute in, whatever they are stored as."""
        return torch.float32

    def _layer(self, kind: str) -> nn.Module:
        return self._owner.get_submodule(f"{self._name}_{kind}")

    def multiplied(self, x: Tensor, *, turned: bool) -> Tensor | None:
        """`x` times the transpose of this matrix `[N, K]`, or, turned, times itself; None where no layer does that."""
        if self._use.get("product") and (self._turned != turned) == self._use["turned"]:
            y: Tensor = self._layer("product")(x)
            return y
        return None

    def rows(self, indices: Tensor) -> Tensor | None:
        """Some rows; None where no layer looks them up."""
        y: Tensor | None = self._layer("table")(indices) if self._use.get("table") and not self._turned else None
        return y

    def convolved(self, name: str, x: Tensor, given: Mapping[str, Any]) -> Tensor | None:
        """`x` convolved by it; None where the layer has another geometry."""
        use = self._use.get("convolution")
        if use is None or use["name"] != name or any(not _same(value, use[key]) for key, value in given.items()):
            return None
        y: Tensor = self._layer("convolution")(x)
        return y

    @property
    def T(self) -> WeightOf:  # noqa: N802  (a tensor's name for it)
        """Its transpose."""
        return WeightOf(self._owner, self._name, self._use, turned=not self._turned)

    mT = T  # noqa: N815

    def t(self) -> WeightOf:
        """Its transpose."""
        return self.T

    def transpose(self, first: int, second: int) -> WeightOf | Tensor:
        """Its transpose, of a matrix."""
        return self.T if self.ndim == 2 and {first % 2, second % 2} == {0, 1} else self.tensor.transpose(first, second)

    def permute(self, *axes: Any) -> WeightOf | Tensor:
        """Its transpose, of a matrix."""
        order = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return self.T if order == (1, 0) else self.tensor.permute(*order)

    def detach(self) -> WeightOf:
        """Itself."""
        return self

    def to(self, *arguments: Any, **keywords: Any) -> WeightOf | Tensor:
        """Itself, in the type that it has; a tensor of any other."""
        tensor = self.tensor
        made = tensor.to(*arguments, **keywords)
        return self if (made.dtype, made.device) == (self.dtype, tensor.device) else made

    def __getitem__(self, index: Any) -> Tensor:
        """Rows by their numbers, or any other part."""
        found = (
            self.rows(index) if isinstance(index, Tensor) and not index.is_floating_point() and index.dtype != torch.bool else None
        )
        return self.tensor[index] if found is None else found

    def __getattr__(self, name: str) -> Any:
        """What the parameter has, such as its shape."""
        if name.startswith("__") or name in ("_owner", "_name", "_use", "_turned"):
            raise AttributeError(name)
        return getattr(self.tensor, name)

    def __matmul__(self, x: Tensor) -> Any:
        """The matrix times `x`."""
        return torch.matmul(self, x)  # type: ignore[arg-type]

    def __rmatmul__(self, x: Tensor) -> Any:
        """`x` times this matrix."""
        return torch.matmul(x, self)  # type: ignore[arg-type]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What an operator gives that got one: by the layer where there is one for it, else by the values."""
        keywords = dict(kwargs or {})
        run = _RUNS.get(func._schema.name.rpartition("::")[2] if isinstance(func, OpOverload) else getattr(func, "__name__", ""))
        found = None if run is None else run(*args, **keywords)
        if found is not None:
            return found
        plain = torch.utils._pytree.tree_map_only(WeightOf, lambda weight: weight.tensor, (tuple(args), keywords))
        return func(*plain[0], **plain[1])


def _linear(x: Any, weight: Any, bias: Any = None, **_: Any) -> Tensor | None:
    y = weight.multiplied(x, turned=False) if isinstance(weight, WeightOf) and isinstance(x, Tensor) else None
    return y if y is None or bias is None else y + bias


def _matmul(a: Any, b: Any, **_: Any) -> Tensor | None:
    if isinstance(b, WeightOf):
        return b.multiplied(a, turned=True) if isinstance(a, Tensor) else None
    if not isinstance(a, WeightOf) or b.ndim < 2:
        return None
    y = a.multiplied(b.transpose(-1, -2), turned=False)
    return None if y is None else y.transpose(-1, -2)


def _addmm(bias: Any, x: Any, weight: Any, **scales: Any) -> Tensor | None:
    y = None if scales else _matmul(x, weight)
    return y if y is None else y + bias


def _embedding(indices: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *_: Any, **__: Any) -> Tensor | None:
    if isinstance(indices, WeightOf):  # torch.embedding has them the other way round
        indices, weight = weight, indices
    return weight.rows(indices) if isinstance(weight, WeightOf) and max_norm is None else None


def _view(name: str) -> Callable[..., WeightOf | Tensor | None]:
    def run(weight: Any, *given: Any, **_: Any) -> Any:
        return getattr(weight, name)(*given) if isinstance(weight, WeightOf) else None

    return run


def _convolution(name: str) -> Callable[..., Tensor | None]:
    order = _TRANSPOSED_ORDER if "transpose" in name else _ORDER

    def run(x: Any, weight: Any, bias: Any = None, *given: Any, **named: Any) -> Tensor | None:
        if not isinstance(weight, WeightOf) or not isinstance(x, Tensor):
            return None
        settings = {**dict(zip(order, given, strict=False)), **named}
        bias = settings.pop("bias", bias)
        y = weight.convolved(name, x, settings)
        return y if y is None or bias is None else y + bias.reshape(-1, *(1,) * int(name[-2]))

    return run


_RUNS: dict[str, Callable[..., WeightOf | Tensor | None]] = {
    **{name: _view(name) for name in ("t", "transpose", "permute", "detach")},
    "numpy_T": _view("t"),
    "index": lambda weight, indices: weight[indices[0]] if isinstance(weight, WeightOf) and len(indices) == 1 else None,
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm"), _matmul),
    "__rmatmul__": lambda a, b: _matmul(b, a),
    "addmm": _addmm,
    "embedding": _embedding,
    **{name: _convolution(name) for name in _CONVOLUTIONS},
}


def _same(a: Any, b: Any) -> bool:
    """Whether two geometries are the same: one number stands for one of each axis."""
    if isinstance(a, str) or isinstance(b, str) or (isinstance(a, int) and isinstance(b, int)):
        return bool(a == b)
    several = a if isinstance(b, int) else b
    first, second = ([value] * len(several) if isinstance(value, int) else list(value) for value in (a, b))
    return first == second


def put(module: nn.Module, name: str, use: Mapping[str, Any], unfolded: Callable[[nn.Module], nn.Module]) -> None:
    """Make layers of a parameter, and put a `WeightOf` in its place.

    Args:
        module: that has it, by any names of which one is `name`.
        name: its path.
        use: how it is used, of `products`.
        unfolded: what stands for a layer of another kind.

    Raises:
        ValueError: there is no such parameter, or it is none of that use.

    """
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    weight = owner._parameters.get(leaf)
    if weight is None or (weight.ndim != 2 and "convolution" not in use):
        raise ValueError(f"{name} must be a parameter that is used as {use}")
    if use.get("product"):
        owner.add_module(f"{leaf}_product", linear(_turned(weight) if use["turned"] else weight))
    if use.get("table"):
        owner.add_module(f"{leaf}_table", table(weight))
    if "convolution" in use:
        owner.add_module(f"{leaf}_convolution", unfolded(convolution_of(weight, None, use["convolution"])))
    del owner._parameters[leaf]
    vars(owner)[leaf] = WeightOf(owner, leaf, use)


def _turned(weight: nn.Parameter) -> nn.Parameter:
    return shared(weight.T, weight)


def convolution_of(weight: nn.Parameter, bias: nn.Parameter | None, geometry: Mapping[str, Any]) -> nn.Module:
    """The layer that convolves so."""
    settings = {key: value for key, value in geometry.items() if key != "name"}
    if not _bounded(settings["stride"]):
        raise ValueError(f"strides must make {_MOST_PARTS} parts at most, got {settings['stride']}")
    groups = int(settings["groups"])
    transposed = "transpose" in str(geometry["name"])
    inputs, outputs = weight.shape[0], weight.shape[1] * groups
    if not transposed:
        inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    kind, has_bias = _CONVOLUTIONS[str(geometry["name"])], bias is not None
    made = kind(inputs, outputs, tuple(weight.shape[2:]), bias=has_bias, device="meta", **settings)
    made.weight = weight
    if bias is not None:
        made.bias = bias
    return made.eval()


def products(program: ExportedProgram, module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """The parameters that are read as weights of layers, but by no layer of theirs: how each is used, by all of its names.

    A use has `product` (true) with `turned` (whether `x w` is computed and not `x wᵀ`), `table` (true), or `convolution` with its
    geometry.

    Args:
        program: of the model.
        module: the model that was traced.
        layers: its plain layers.

    """
    live = live_nodes(program)
    own = {(id(layer.get_parameter("weight")), name) for name, layer in _paths(module, layers)}
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    found: dict[str, dict[str, Any]] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        target = program.graph_signature.inputs_to_parameters.get(node.name)
        if target is None:
            continue
        parameter = module.get_parameter(target)
        if parameter.ndim < 2 or parameter.numel() < _FEWEST or not parameter.is_floating_point():
            continue
        readers = [reader for reader in node.users if reader in live]
        if not readers or all((id(parameter), path_of(reader)) in own for reader in readers):
            continue
        use = _joint(list(_uses(node, live, turned=False)))
        if use is not None:
            found |= dict.fromkeys(names[id(parameter)], use)
    return found


def _paths(module: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """The layers by all of their paths in the traced module."""
    known = {id(layer) for layer in layers.values()}
    return ((name, part) for name, part in module.named_modules(remove_duplicate=False) if id(part) in known)


def _uses(node: Node, live: Collection[Node], *, turned: bool) -> Iterator[dict[str, Any]]:
    """How a parameter, or a view of it, is used; an empty use for one that no layer has."""
    for user in node.users:
        if user not in live:
            continue
        places = [place for place, argument in enumerate(user.args) if argument is node]
        place, target = places[0] if len(places) == 1 else None, user.target
        if place == 0 and target in (_aten.detach.default, _aten.alias.default):
            yield from _uses(user, live, turned=turned)
        elif place == 0 and _turns(user):
            yield from _uses(user, live, turned=not turned)
        elif node.meta["val"].ndim == 2 and target is _aten.linear.default and place == 1:
            yield {"product": True, "turned": turned}
        elif node.meta["val"].ndim == 2 and _multiplies(user, place):
            yield {"product": True, "turned": turned != (place != 0)}
        elif node.meta["val"].ndim == 2 and not turned and place == 0 and _looks_up(user):
            yield {"table": True}
        else:
            geometry = geometry_of(user) if place == 1 else None
            yield {} if geometry is None else {"convolution": geometry}


def _turns(node: Node) -> bool:
    if node.target in (_aten.t.default, _aten.numpy_T.default, _aten.mT.default):
        return True
    if node.args[0].meta["val"].ndim != 2:  # type: ignore[union-attr]
        return False
    if node.target is _aten.transpose.int:
        return {int(axis) % 2 for axis in node.args[1:3]} == {0, 1}  # type: ignore[arg-type]
    return node.target is _aten.permute.default and list(node.args[1]) == [1, 0]  # type: ignore[arg-type]


def _multiplies(node: Node, place: int | None) -> bool:
    if node.target in (_aten.matmul.default, _aten.mm.default):
        other = node.args[1 - place] if place in (0, 1) else None
        return isinstance(other, Node) and (place == 1 or other.meta["val"].ndim > 1)
    return node.target is _aten.addmm.default and place == 2 and not node.kwargs and len(node.args) == 3


def _looks_up(node: Node) -> bool:
    if node.target is _aten.embedding.default:
        return True
    if node.target is not _aten.index.Tensor:
        return False
    indices = node.args[1]
    return isinstance(indices, list | tuple) and len(indices) == 1 and isinstance(indices[0], Node) and not _is_mask(indices[0])


def _is_mask(node: Node) -> bool:
    return node.meta["val"].dtype in (torch.bool, torch.uint8)


def geometry_of(node: Node) -> dict[str, Any] | None:
    """What a convolution is given beside its input, weight and bias."""
    packet = getattr(node.target, "_overloadpacket", None)
    name = next((name for name in _CONVOLUTIONS if packet is getattr(_aten, name)), None)
    if name is None:
        return None
    order, axes = (_TRANSPOSED_ORDER if "transpose" in name else _ORDER), int(name[-2])
    settings: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    settings |= {"output_padding": 0} if "transpose" in name else {}
    settings |= {
        key: list(value) if isinstance(value, list | tuple) else value for key, value in zip(order, node.args[3:], strict=False)
    }
    for key, value in settings.items():
        if isinstance(value, list) and len(value) == 1:
            settings[key] = value * axes
    plain = all(
        isinstance(part, int | str) for value in settings.values() for part in (value if isinstance(value, list) else [value])
    )
    return {"name": name, **settings} if plain and _bounded(settings["stride"]) else None


def _bounded(stride: Any) -> bool:
    """Whether a transposed convolution has no more parts than can be: a record may come from anybody."""
    return math.prod(stride if isinstance(stride, list) else [stride] * 2) <= _MOST_PARTS


def _joint(uses: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """One use for all; None where they do not go together."""
    joint: dict[str, Any] = {}
    for use in uses:
        if not use or any(joint.get(key, value) != value for key, value in use.items()):
            return None
        joint |= use
    mixed = ("convolution" in joint and len(joint) > 1) or (joint.get("turned") and "table" in joint)
    return None if mixed else joint
