"""Checks of a program that ExecuTorch leaves to its kernels: whether calls bring as many values, and of such types, as they read.

A kernel that is handed another type of value ends the process, one that is handed too few reads what lies behind them. The
signatures are those of the operators that ExecuTorch brings; ours check themselves, and those of others are not known.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from importlib import resources

from edgecomp.exported.executorch_delegates import Delegates
from edgecomp.exported.flatbuffer import Table

ANY, MAYBE = "*", "?"
PLAN_VALUES, PLAN_INPUTS, PLAN_OUTPUTS, PLAN_CHAINS, PLAN_OPERATORS, PLAN_DELEGATES = 2, 3, 4, 5, 6, 7
CHAIN_INSTRUCTIONS = 2
INSTRUCTION_TYPE, INSTRUCTION = 0, 1
KERNEL_CALL, DELEGATE_CALL = 1, 2  # of the union InstructionArguments
VALUE_TYPE, VALUE = 0, 1
TENSOR, STRING = 5, 6  # of the union KernelTypes
_NULL, _INT, _BOOL, _DOUBLE, _INTS, _DOUBLES, _BOOLS, _TENSORS, _OPTIONAL_TENSORS = 1, 2, 3, 4, 7, 8, 9, 10, 11
_CALLED, _ARGUMENTS = 0, 1
_ITEMS = 0
_NOTHING = -1  # an item of a list of optional tensors

# What a letter of a signature stands for.
_TYPES: dict[str, frozenset[int]] = {
    "T": frozenset({TENSOR}),
    "i": frozenset({_INT}),
    "d": frozenset({_DOUBLE}),
    "b": frozenset({_BOOL}),
    "n": frozenset({_INT, _BOOL, _DOUBLE}),
    "s": frozenset({STRING}),
    "I": frozenset({_INTS}),
    "D": frozenset({_DOUBLES}),
    "B": frozenset({_BOOLS}),
    "L": frozenset({_TENSORS}),
    "O": frozenset({_OPTIONAL_TENSORS}),
    ANY: frozenset(range(12)),
}
_NAMES = ["nothing", "null", "an integer", "a truth value", "a number", "a tensor", "a text"]
_NAMES += ["integers", "numbers", "truth values", "tensors", "optional tensors"]

_Callee = tuple[str, tuple[frozenset[int], ...]]  # a name, and the types of the values that it reads


@functools.cache
def signatures() -> dict[str, tuple[frozenset[int], ...]]:
    """The types that each argument of an operator may have, by the operator's name."""
    lines = (resources.files(__package__) / "executorch_signatures.txt").read_text("utf-8").splitlines()
    return {name: tuple(_types(letters)) for name, letters in (line.split() for line in lines)}


def _types(letters: str) -> Iterator[frozenset[int]]:
    for letter, maybe in re.findall(r"(.)(\?)?", letters):
        yield _TYPES[letter] | {_NULL} if maybe else _TYPES[letter]


def instructions(plan: Table, delegates: Delegates) -> Iterator[str]:
    """What each instruction of a plan calls, an operator or a backend; empty where it only moves values or jumps.

    Raises:
        ValueError: a call names no operator, or brings other values than the operator reads; a list holds values of another type;
            inputs or outputs are no values.

    """
    kinds = [value.number(VALUE_TYPE, "B") for value in plan.tables(PLAN_VALUES)]
    for value, kind in zip(plan.tables(PLAN_VALUES), kinds, strict=True):
        if kind in (_INTS, _TENSORS, _OPTIONAL_TENSORS):
            _check_list(value.table(VALUE), kind, kinds)
    for index in (*plan.numbers(PLAN_INPUTS, "i"), *plan.numbers(PLAN_OUTPUTS, "i")):
        if not 0 <= index < len(kinds):
            raise ValueError(f"value {index} of {len(kinds)} is an input or output")
    operators = [(name, signatures().get(name, ())) for name in map(qualified, plan.tables(PLAN_OPERATORS))]
    backends = [(part.text(0), (_TYPES["T"],) * delegates.values_needed(part)) for part in plan.tables(PLAN_DELEGATES)]
    for chain in plan.tables(PLAN_CHAINS):
        for instruction in chain.tables(CHAIN_INSTRUCTIONS):
            yield _called(instruction, operators, backends, kinds)


def qualified(operator: Table) -> str:
    """An operator's name, with its overload where it has one."""
    name, overload = operator.text(0), operator.text(1)
    if not name:
        raise ValueError("an operator has no name")
    return f"{name}.{overload}" if overload else name


def _check_list(value: Table | None, kind: int, kinds: Sequence[int]) -> None:
    """Items are numbers of values: of integers, or of tensors."""
    items = () if value is None else value.numbers(_ITEMS, "q" if kind == _INTS else "i")
    wanted = _TYPES["i"] if kind == _INTS else _TYPES["T"] | ({_NULL} if kind == _OPTIONAL_TENSORS else set())
    for item in items:
        if item == _NOTHING and kind == _OPTIONAL_TENSORS:
            continue
        if not 0 <= item < len(kinds) or kinds[item] not in wanted:
            raise ValueError(f"a list of {_NAMES[kind]} holds value {item}, which is none")


def _called(instruction: Table, operators: Sequence[_Callee], backends: Sequence[_Callee], kinds: Sequence[int]) -> str:
    kind, call = instruction.number(INSTRUCTION_TYPE, "B"), instruction.table(INSTRUCTION)
    if call is None or kind not in (KERNEL_CALL, DELEGATE_CALL):
        return ""
    index, known = call.number(_CALLED, "i"), operators if kind == KERNEL_CALL else backends
    if not 0 <= index < len(known):
        raise ValueError(f"an instruction calls number {index} of {len(known)}")
    (name, wanted), arguments = known[index], call.numbers(_ARGUMENTS, "i")
    if len(arguments) < len(wanted):
        raise ValueError(f"{name} is called with {len(arguments)} values, and reads {len(wanted)}")
    for position, argument in enumerate(arguments):
        if not 0 <= argument < len(kinds):
            raise ValueError(f"{name} is called with value {argument} of {len(kinds)}")
        if position < len(wanted) and kinds[argument] not in wanted[position]:
            raise ValueError(f"{name} is called with {_name(kinds[argument])} as argument {position}")
    return name


def _name(kind: int) -> str:
    return _NAMES[kind] if kind < len(_NAMES) else f"a value of type {kind}"
