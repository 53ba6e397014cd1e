"""What a device answers, held to what an answer must be: whatever else it is, that device has failed, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgecomp.errors import DeviceError

_Model = TypeVar("_Model", bound=BaseModel)


def part_of(answer: Mapping[str, Any], *path: str, url: str) -> Any:
    """A part of an answer.

    Raises:
        DeviceError: it is missing.

    """
    value: Any = answer
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            raise DeviceError(f"{url}: the answer is not what this version expects: it has no {'.'.join(path)}")
        value = value[key]
    return value


def validated(model: type[_Model], value: Any, url: str) -> _Model:
    """A part of an answer as what it must be.

    Raises:
        DeviceError: it is something else.

    """
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        raise DeviceError(f"{url}: the answer is not what this version expects: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first of what is wrong with a value, and how much more there is."""
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg']} ({error.error_count()} such places)"
