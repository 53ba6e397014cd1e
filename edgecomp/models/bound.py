"""Inputs by name: which parameter of `forward` each goes to, and what comes back as tensors with names."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from edgecomp.errors import ModelError
from edgecomp.models.state import exchanged


class Adapter(nn.Module):
    """Gives a model a plain signature, tensors in and tensors out; layers are named below its `body`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body


def body_of(module: nn.Module) -> nn.Module:
    """The module below which layers are named: an adapter's body, or the module itself."""
    return module.body if isinstance(module, Adapter) else module


class Binding(Protocol):
    """How a model's inputs, in order, become the arguments of its `forward`."""

    def arguments(self, inputs: Sequence[Tensor]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Positional arguments and keywords."""


@dataclass(frozen=True)
class ByName:
    """The first `positional` inputs by position, the others by the parameters `keywords`."""

    positional: int
    keywords: tuple[str, ...]

    def arguments(self, inputs: Sequence[Tensor]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """As `Binding` says."""
        return inputs[: self.positional], dict(zip(self.keywords, inputs[self.positional :], strict=True))


class Bound(Adapter):
    """Anyone's module, which takes the model's inputs in order: each goes to the parameter of its name.

    Args:
        body: the module. Its outputs may be tensors, and tuples, lists, dictionaries and dataclasses of them; `forward` here
            returns one tensor, or the tensors of all of these in a tuple.
        binding: where each input goes.
        state: names of buffers of the module. They come as inputs behind the others, and what `forward` makes of them is given out
            behind the other outputs; the module's own stay as they are.
        keeps: whether `forward` leaves in its buffers what its next run reads, for programs that have buffers of their own.

    """

    def __init__(self, body: nn.Module, binding: Binding, state: Sequence[str] = (), *, keeps: bool = False) -> None:
        super().__init__(body)
        self.keeps = keeps
        self.binding = binding
        self.state = tuple(state)
        self.copies_inputs = False  # set where a trace must not change its inputs, as the module may

    def __getattr__(self, name: str) -> Any:
        """What the module has, such as its layers, as if this were the module itself."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "body" or name.startswith("_"):
                raise
            return getattr(self.body, name)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs for the inputs, in order."""
        given = [tensor.clone() for tensor in inputs] if self.copies_inputs or self.state else inputs
        count = len(given) - len(self.state)
        with exchanged(self.body, dict(zip(self.state, given[count:], strict=True))) as state:
            output = self.run_body(given[:count])
            tensors = (output,) if isinstance(output, Tensor) else tuple(named_tensors(output).values())
            tensors = (*tensors, *state())
        return tensors[0] if isinstance(output, Tensor) and not self.state else tensors

    def run_body(self, inputs: Sequence[Tensor]) -> Any:
        """What the module itself returns."""
        arguments, keywords = self.binding.arguments(inputs)
        return self.body(*arguments, **keywords)

    def extra_repr(self) -> str:
        """The binding, which decides what the model computes."""
        return f"{self.binding}, state={self.state}" if self.state else repr(self.binding)


def bind(module: nn.Module, names: Sequence[str]) -> tuple[tuple[str, ...], ByName]:
    """Inputs by name for `module.forward`: their names in its order, and where they go.

    A name that is no parameter goes into `**kwargs` by name, else into `*args`, after all other inputs and in the order given.
    Where `forward` has one parameter, the one input may have any name.

    Raises:
        ModelError: a name that `forward` does not take, one that it needs and did not get, or the same name twice.

    """
    parameters = inspect.signature(module.forward).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword_only = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    takes_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if len(parameters) == len(plain) == len(names) == 1:
        return (names[0],), ByName(1, ())
    known = [p.name for p in (*plain, *keyword_only)]
    others = [name for name in names if name not in known]
    lacking = [p.name for p in (*plain, *keyword_only) if p.default is p.empty and p.name not in names]
    if len(set(names)) < len(names) or lacking or (others and not (takes_more or takes_keywords)):
        wrong = [f"{name} is not given" for name in lacking] or [f"{name} is no parameter of it" for name in others]
        raise ModelError(
            f"inputs go by name to forward{_signature(module)} of {type(module).__name__}, and the inputs are {', '.join(names)}: "
            f"{'; '.join(wrong) or 'each name may come once'}. Name samples and TensorSpecs as forward names its parameters"
        )
    first = [p.name for p in plain if p.name in names]
    leading = 0  # the parameters that can go by position, since none before them is left out
    while leading < len(first) and plain[leading].name == first[leading]:
        leading += 1
    if any(p.kind is p.POSITIONAL_ONLY and p.name in first[leading:] for p in plain):
        raise ModelError(f"forward{_signature(module)} of {type(module).__name__} needs the parameters before its last one too")
    if others and not takes_keywords:
        if leading < len(plain):
            raise ModelError(
                f"the inputs {', '.join(others)} go into *args of forward{_signature(module)}, behind all of its other parameters: "
                "give those too"
            )
        order = (*first, *others, *(p.name for p in keyword_only if p.name in names))
        return order, ByName(leading + len(others), order[leading + len(others) :])
    order = (*first, *(p.name for p in keyword_only if p.name in names), *others)
    return order, ByName(leading, order[leading:])


def _signature(module: nn.Module) -> str:
    parameters = inspect.signature(module.forward).parameters.values()
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in parameters]))


def named_tensors(output: Any) -> dict[str, Tensor]:
    """The tensors that a model returned, by name: `output`, or what dictionaries and dataclasses call them.

    Those of tuples have their position behind the name: `output`, `output_1`, `hidden_2`. None is no output.

    Raises:
        ModelError: anything else, such as a number, or two tensors of one name.

    """
    tensors: dict[str, Tensor] = {}
    for name, value in _leaves("", output):
        if not isinstance(value, Tensor):
            raise ModelError(
                f"a model must return tensors, or tuples, dictionaries and dataclasses of them, but {name or 'output'} is of type "
                f"{type(value).__name__}: return tensors alone, from a module around this one (package.module:factory)"
            )
        if tensors.setdefault(name or "output", value) is not value:
            raise ModelError(f"a model must return each output under a name of its own, but two are called {name}")
    if not tensors:
        raise ModelError("a model must return tensors, and this one returns none")
    return tensors


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):  # transformers' outputs too
        for key, item in value.items():
            yield from _leaves(f"{name}_{key}" if name else str(key), item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _leaves(name, {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    elif isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        yield from _leaves(name, dict(zip(value._fields, value, strict=True)))
    elif isinstance(value, tuple | list):
        for position, item in enumerate(value):
            yield from _leaves(f"{name or 'output'}_{position}" if position else name, item)
    elif value is not None:
        yield name, value
