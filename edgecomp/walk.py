"""A model run block by block on calibration samples: the one walk that statistics, fitting and block-wise learning share.

The model is cut into units: what runs before its blocks, each block, what runs behind them. A walk goes through them in order and
carries each sample's hidden state from one unit to the next, so that only one unit's weights are in float32, and one unit's
statistics in memory, at a time. A model without blocks (`find_structure`) is one unit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgecomp.calibration import run_module
from edgecomp.errors import CalibrationError
from edgecomp.memory import require_memory
from edgecomp.weights import materialised, streamed, trim_heap

_COMPARED = 1 << 20  # numbers
_TOLERANCE = 1e-4  # of what a walk gives, relative: the operations are the same, their order in memory need not be


@dataclass(frozen=True)
class Call:
    """What a block was given beside the running value: masks, positions, and the like."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True)
class Structure:
    """How a model runs, seen on one sample.

    Args:
        blocks: names of the modules that run one after the other, each on what the one before it gave; empty where there are none.
        widths: how many values each block returns; 0 for a tensor by itself.
        before: the watched layers that run before the first block and never behind the last one.
        called: the watched layers that the sample reached.

    """

    blocks: tuple[str, ...]
    widths: tuple[int, ...]
    before: frozenset[str]
    called: frozenset[str]


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first of several."""
    first: Tensor = output[0] if isinstance(output, tuple | list) else output
    return first


def find_structure(
    module: nn.Module, inputs: Sequence[Tensor], layers: Mapping[str, nn.Module], say: Callable[[str], None] | None = None
) -> Structure:
    """The blocks of a model, the children of the largest `ModuleList` or `Sequential` that run one after the other.

    That they are called so does not say that nothing else passes between or behind them, as in feature pyramids: a walk over the
    inputs must give what the model gives, else the model counts as one without blocks.

    Args:
        module: the model, which is run once at once and once by units.
        inputs: what to run it on.
        layers: modules of it, by any name, to tell which of them run before the blocks.
        say: is told why blocks that run in order are not taken for blocks.

    Raises:
        CalibrationError: the model does not take the inputs.

    """
    lists = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    lists = [(name, part) for name, part in lists if len(part) > 1 and len(set(part)) == len(part)]
    lists.sort(key=lambda item: -sum(parameter.numel() for parameter in item[1].parameters()))
    calls: list[nn.Module] = []
    chains = {name: _Chain(list(part)) for name, part in lists}
    parts = {id(part): part for part in module.modules()} | {id(layer): layer for layer in layers.values()}
    with ExitStack() as stack, streamed(module):
        # A chain's hooks come first, so that its blocks' own calls lie within their spans.
        stack.enter_context(_hooks([chain.attach(calls) for chain in chains.values()]))
        notes = [part.register_forward_pre_hook(lambda part, _: calls.append(part)) for part in parts.values()]
        stack.enter_context(_hooks([notes]))
        expected = run_module(module, inputs)
    reached = {id(layer) for layer in calls}
    called = frozenset(key for key, layer in layers.items() if id(layer) in reached)
    for name, part in lists:
        chain = chains[name]
        if not chain.holds or _shares_modules(list(part)):
            continue
        (began, _), (_, ended) = chain.spans[0], chain.spans[-1]
        before = {id(layer) for layer in calls[:began]} - {id(layer) for layer in calls[ended:]}
        names = tuple(f"{name}.{child}" if name else child for child, _ in part.named_children())
        found = Structure(names, tuple(chain.widths), frozenset(key for key in called if id(layers[key]) in before), called)
        reused = chain.reused(calls)
        doubt = "since modules of theirs are used outside of them too" if reused else _doubt(module, found, inputs, expected)
        if doubt is None:
            return found
        if say is not None:
            first, last = names[0].removeprefix("body."), names[-1].removeprefix("body.")
            say(
                f"the model runs as a whole, and needs the memory for that: {first} to {last} run one after the other, but "
                f"cannot be run one by one, {doubt}"
            )
        break
    return Structure((), (), frozenset(), called)


def unreached(module: nn.Module, samples: Iterable[Sequence[Tensor]], layers: Mapping[str, nn.Module]) -> list[str]:
    """Names of the layers that no sample reaches; the model runs on one sample after the other for as long as there are any.

    Raises:
        CalibrationError: the model does not take a sample.

    """
    reached: set[nn.Module] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: reached.add(layer)) for layer in layers.values()]
    with _hooks([hooks]), streamed(module):
        for inputs in samples:
            run_module(module, inputs)
            if reached.issuperset(layers.values()):
                break
    return [name for name, layer in layers.items() if layer not in reached]


def _doubt(module: nn.Module, structure: Structure, inputs: Sequence[Tensor], expected: Any) -> str | None:
    """Why a walk over the inputs does not give what the model gives for them; None where it does."""
    try:
        for unit in Walk(module, structure, {}, [inputs], torch.device("cpu")).units():
            (output,) = unit.run()
    except Exception as error:  # noqa: BLE001  (whatever a model's code raises where it is given less than it expects)
        return f"which fails: {type(error).__name__}: {error}"
    return None if _agree(output, expected) else "since more than one value passes between or behind them (other outputs)"


def _agree(output: Any, expected: Any) -> bool:
    """Whether the same operations gave both: tensors that are alike but for rounding."""
    pairs = [[leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)] for value in (output, expected)]
    return 0 < len(pairs[1]) == len(pairs[0]) and all(_close(a, b) for a, b in zip(*pairs, strict=True))


def _close(value: Tensor, expected: Tensor) -> bool:
    if value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():
        return torch.equal(value, expected)
    # Some numbers at a time: this takes seven times what it compares, and logits may be larger than the largest weight.
    parts, squares, count = expected.flatten().split(_COMPARED), 0.0, 0
    for part in parts:
        finite = part[part.isfinite()]
        squares, count = squares + float(finite.double().square_().sum()), count + len(finite)
    bound = _TOLERANCE * math.sqrt(squares / max(1, count))
    pairs = zip(value.flatten().split(_COMPARED), parts, strict=True)
    return all(torch.allclose(got, part, rtol=_TOLERANCE, atol=bound, equal_nan=True) for got, part in pairs)


def _shares_modules(blocks: Sequence[nn.Module]) -> bool:
    """Whether a module belongs to two blocks: it runs in both, so that neither sees all of its inputs."""
    owners: dict[int, int] = {}
    return any(owners.setdefault(id(part), number) != number for number, block in enumerate(blocks) for part in block.modules())


class _Chain:
    """Watches whether each of some modules is called once, in order, on what the one before it gave."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        self._parts = parts
        self._value: Tensor | None = None
        self._broken = False
        self._began = 0
        self.widths: list[int] = []
        self.spans: list[tuple[int, int]] = []  # of each part, the calls of modules from its own to the last within it

    @property
    def holds(self) -> bool:
        return not self._broken and len(self.widths) == len(self._parts)

    def reused(self, calls: Sequence[nn.Module]) -> bool:
        """Whether a module of a part that holds parameters is also called outside of the parts, which a walk does not see."""
        inner = {id(module) for part in self._parts for module in part.modules() if any(True for _ in module.parameters(False))}
        outside = [0, *(place for span in self.spans for place in span), len(calls)]
        return any(id(call) in inner for i in range(0, len(outside), 2) for call in calls[outside[i] : outside[i + 1]])

    def attach(self, calls: Sequence[nn.Module]) -> list[Any]:
        def before(_: nn.Module, __: Any) -> None:
            self._began = len(calls)

        def after(number: int, arguments: tuple[Any, ...], output: Any) -> None:
            taken = arguments[0] if arguments else None
            expected = number == len(self.widths) and isinstance(taken, Tensor) and (number == 0 or taken is self._value)
            several = isinstance(output, tuple | list) and len(output) > 0
            value = output[0] if several else output
            self._broken = self._broken or not expected or not isinstance(value, Tensor)
            self.widths.append(len(output) if several else 0)
            self._value = value if isinstance(value, Tensor) else None
            self.spans.append((self._began, len(calls)))

        hooks: list[Any] = []
        for number, part in enumerate(self._parts):
            hooks.append(part.register_forward_pre_hook(before))
            hooks.append(part.register_forward_hook(lambda _, arguments, output, n=number: after(n, arguments, output)))
        return hooks


class Unit:
    """A part of the model that runs at once.

    Args:
        name: the module's name; empty for what runs outside the blocks. People know it by its `title`, since adapters hold their
            models as `body`.
        module: the module whose weights the unit needs.
        layers: names of the watched layers whose statistics are complete after this unit, in the order of the model.

    """

    def __init__(self, name: str, module: nn.Module, layers: Sequence[str], walk: Walk, run: Callable[[int], Any]) -> None:
        self.name = name
        self.title = name.removeprefix("body.")
        self.module = module
        self.layers = tuple(layers)
        self._walk = walk
        self._run = run

    def output(self, number: int) -> Any:
        """What the unit gives for a sample, of a block its running value; within `Walk.opened`, with gradients where enabled."""
        return self._run(number)

    def run(self, *, keep: bool = True, context: Callable[[], Any] | None = None) -> Iterator[Tensor | None]:
        """Run the unit on every sample in turn, without gradients; yields each output, of a block its running value.

        Args:
            keep: keep the running value for the units behind.
            context: a context manager to enter for each sample, such as one that watches layers.

        """
        with self._walk.opened(self):
            for number in range(len(self._walk.batches)):
                with ExitStack() as stack:
                    if context is not None:
                        stack.enter_context(context())
                    output = self._run(number)
                if keep:
                    self._walk.keep(self, number, output)
                yield output


class Walk:
    """A model cut into units, and the hidden states of its samples between them.

    Args:
        module: the model. Its parameters may be of any float type: those of a unit are float32 while it runs.
        structure: its blocks.
        layers: the layers to be watched, by name.
        batches: the model's inputs.
        device: where units run.
        names: what messages call the batches.

    """

    def __init__(
        self,
        module: nn.Module,
        structure: Structure,
        layers: Mapping[str, nn.Module],
        batches: Sequence[Sequence[Tensor]],
        device: torch.device,
        names: Sequence[str] | None = None,
    ) -> None:
        self._module = module
        self._structure = structure
        self._blocks = [module.get_submodule(name) for name in structure.blocks]
        self.batches = batches
        self._names = [f"sample {number}" for number in range(len(batches))] if names is None else names
        self._device = device
        self._layers = layers
        self._parts = {id(part): part for part in module.modules()}
        self.values: list[Tensor] = []  # the running value of each sample before the next unit
        self.calls: list[list[Call]] = []  # of each sample, the call of each block
        self._seen: list[Tensor] = []  # tensors of calls: equal ones, such as masks, are kept once

    def units(self) -> list[Unit]:
        """The units in order."""
        if not self._blocks:
            return [Unit("", self._module, list(self._layers), self, self._run_whole)]
        inside = {id(part): number for number, block in enumerate(self._blocks) for part in block.modules()}
        owned: dict[int, list[str]] = {}
        for name, layer in self._layers.items():
            unit = inside.get(id(layer), -1 if name in self._structure.before else len(self._blocks))
            owned.setdefault(unit, []).append(name)
        units = [Unit("", self._module, owned.get(-1, []), self, self._run_before)]
        for number, (name, block) in enumerate(zip(self._structure.blocks, self._blocks, strict=True)):
            units.append(Unit(name, block, owned.get(number, []), self, partial(self._run_block, number)))
        units.append(Unit("", self._module, owned.get(len(self._blocks), []), self, self._run_behind))
        return units

    @contextmanager
    def opened(self, unit: Unit) -> Iterator[None]:
        """The unit's weights in float32 on the device; for what runs outside the blocks, all but theirs."""
        with torch.no_grad(), materialised(unit.module, self._device, without=self._blocks if unit.module is self._module else ()):
            yield
        trim_heap()

    def keep(self, unit: Unit, number: int, output: Tensor) -> None:
        """Put a unit's output in the place of its input."""
        if not unit.name:
            return
        kept = self.values[number]
        if (kept.shape, kept.stride(), kept.dtype, kept.device) == (output.shape, output.stride(), output.dtype, output.device):
            # In the same memory: a new tensor a sample, allocated among what a block needs for a moment, would keep pieces of that
            # from going back. At 64 windows of a model of 1.1 billion parameters the heap grew by 800 MB in one block.
            kept.copy_(output)
        else:
            self.values[number] = output

    def _placed(self, number: int) -> list[Tensor]:
        return [tensor.to(self._device) for tensor in self.batches[number]]

    def _run_whole(self, number: int) -> Any:
        return run_module(self._module, self._placed(number))

    def _run_before(self, number: int) -> Tensor:
        """Run up to the last block, the blocks passing on what they are given: the running value, and the calls of all blocks."""
        calls: list[Call] = []
        first: list[Tensor] = []

        def stub(block: int, *arguments: Any, **keywords: Any) -> Any:
            if block != len(calls):
                raise _Reached
            if block == 0:
                first.append(arguments[0].detach())
            calls.append(self._interned(Call(arguments[1:], keywords)))
            if block == len(self._blocks) - 1:
                raise _Reached
            return self._returned(block, arguments[0])

        with self._stubbed(stub), suppress(_Reached):
            run_module(self._module, self._placed(number))
        self._require_order(number, range(len(calls)))
        if number == len(self.values):
            if not number:
                self._require_memory(first[0])
            self.values.append(first[0].clone())  # which may be the model's input itself
            self.calls.append(calls)
        return first[0]

    def _require_memory(self, first: Tensor) -> None:
        """Refuse samples whose hidden states do not fit into memory, going by the first one."""
        rows = sum(batch[0].numel() for batch in self.batches) / max(1, self.batches[0][0].numel())
        require_memory(
            int(first.numel() * first.element_size() * rows),
            f"keeping what {len(self.batches):,} samples give between the blocks of the model",
            "give fewer or shorter samples (--samples, --sequence-length)",
            self._device,
        )

    def _run_block(self, block: int, number: int) -> Tensor:
        call = self._for_one_run(self.calls[number][block])
        value = self.values[number].clone()  # a block may change what it is given
        return first_tensor(self._blocks[block](value, *call.arguments, **call.keywords))

    def _run_behind(self, number: int) -> Any:
        called: list[int] = []

        def stub(block: int, *arguments: Any, **_: Any) -> Any:
            called.append(block)
            return self._returned(block, self.values[number].clone() if block == len(self._blocks) - 1 else arguments[0])

        with self._stubbed(stub):
            output = run_module(self._module, self._placed(number))
        self._require_order(number, called)
        return output

    def _require_order(self, number: int, called: Sequence[int]) -> None:
        if list(called) != list(range(len(self._blocks))):
            first, *_, last = self._structure.blocks
            raise CalibrationError(
                f"every sample must run the blocks {first} to {last} once each and in order, as the first sample does, but "
                f"{self._names[number]} does not: give samples that the model treats alike"
            )

    def _returned(self, block: int, value: Tensor) -> Any:
        width = self._structure.widths[block]
        return (value, *[None] * (width - 1)) if width else value

    @contextmanager
    def _stubbed(self, stub: Callable[..., Any]) -> Iterator[None]:
        """Blocks that call `stub` with their number in the place of running."""
        for number, block in enumerate(self._blocks):
            block.forward = partial(stub, number)
        try:
            yield
        finally:
            for block in self._blocks:
                del block.forward

    def _for_one_run(self, call: Call) -> Call:
        """The call with copies of the objects in it that a block may write to, such as caches of keys and values; tensors stay."""
        stay = {id(tensor): tensor for tensor in pytree.tree_leaves((call.arguments, call.keywords)) if isinstance(tensor, Tensor)}
        return Call(*copy.deepcopy((call.arguments, call.keywords), {**self._parts, **stay}))

    def _interned(self, call: Call) -> Call:
        return Call(*pytree.tree_map_only(Tensor, self._intern, (call.arguments, call.keywords)))

    def _intern(self, tensor: Tensor) -> Tensor:
        for seen in self._seen:
            if seen is tensor or (seen.dtype == tensor.dtype and seen.shape == tensor.shape and torch.equal(seen, tensor)):
                return seen
        self._seen.append(tensor.detach())
        return self._seen[-1]


class _Reached(BaseException):
    pass


@contextmanager
def _hooks(groups: Sequence[Sequence[Any]]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in (handle for group in groups for handle in group):
            handle.remove()
