"""Messages as the text that a model was taught, by its chat template.

A template is a stranger's program in jinja's language: it runs in jinja's sandbox, without access to files or Python's attributes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from edgecomp.bounded import LARGEST_CONFIGURATION_BYTES, read_bytes, read_json
from edgecomp.errors import CheckpointError, ModelError, RuntimeUnavailableError, first_line

Message = Mapping[str, str]
_TEMPLATE, _CONFIGURATION = "chat_template.jinja", "tokenizer_config.json"
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class Template:
    """A folder's chat template.

    Raises:
        ModelError: it has none.
        CheckpointError: it is not in jinja's language, or what describes the tokenizer is damaged.
        RuntimeUnavailableError: the package jinja2 is missing.

    """

    def __init__(self, folder: Path) -> None:
        try:
            from jinja2.exceptions import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise RuntimeUnavailableError(f"chat needs the package jinja2: pip install 'edgecomp[generate]' ({error})") from error
        configuration = _configuration(folder)
        source = _source(folder, configuration)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        self._errors = TemplateError
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"the chat template of {folder} must be in jinja's language: {first_line(error)}") from error
        named = {name: configuration.get(name) for name in _TOKENS}
        # Older configurations have a token as an object.
        self._tokens = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items() if value}

    def __call__(self, messages: Sequence[Message]) -> str:
        """The text of messages (`role`, `content`), up to where the model answers.

        Raises:
            ModelError: the template refuses them.

        """
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._tokens)
        except (self._errors, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise ModelError(f"the model's chat template refuses these messages: {first_line(error)}") from error


def _configuration(folder: Path) -> Mapping[str, Any]:
    file = folder / _CONFIGURATION
    if not file.is_file():
        return {}
    try:
        found = read_json(file, LARGEST_CONFIGURATION_BYTES)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} must describe the tokenizer, and does not ({error}): export the model again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} must hold a JSON object, got a {type(found).__name__}: export the model again")
    return found


def _source(folder: Path, configuration: Mapping[str, Any]) -> str:
    file = folder / _TEMPLATE
    if file.is_file():
        try:
            return read_bytes(file, LARGEST_CONFIGURATION_BYTES).decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} must be a chat template: {error}") from error
    found = configuration.get("chat_template")
    if isinstance(found, str):
        return found
    raise ModelError(f"{folder} has no chat template, so that its model was not taught to chat: give --prompt without --chat")


def _refuse(message: str) -> None:
    raise ValueError(message)
