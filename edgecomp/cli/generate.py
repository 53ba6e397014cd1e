"""Write text with an exported language model, or chat with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecomp.cli.common import add_json, add_quiet, print_json

if TYPE_CHECKING:
    from edgecomp.generation.folder import Folder
    from edgecomp.generation.sampling import Sampler
    from edgecomp.generation.text import Tokens
    from edgecomp.generation.writing import Held, Rates, TextWriter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edgecomp generate`."""
    parser.add_argument("artifact", type=Path, metavar="FOLDER", help="a language model that edgecomp export wrote with its cache")
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="is continued as it stands; with --chat the first message")
    parser.add_argument(
        "--chat", action="store_true", help="messages by the model's template: --prompt, or lines of standard input"
    )
    parser.add_argument("--system", metavar="TEXT", help="with --chat: the message of the system")
    parser.add_argument("-n", "--max-tokens", type=int, default=256, metavar="N", help="of a text or an answer (default: 256)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="of the K likeliest tokens alone (0: all)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="of the likeliest tokens that reach P together alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument(
        "--context", type=int, metavar="TOKENS", help="of a text at most (default: what the model was exported for)"
    )
    parser.add_argument("--save-prefix", type=Path, metavar="FILE", help="keep what was computed of the text or of the last turn")
    parser.add_argument(
        "--prefix", type=Path, metavar="FILE", help="what was kept, so that a text that begins so is not computed again"
    )
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--library", default="auto", help="of our operators: auto, none (stock operators, slow), or a path")
    parser.add_argument(
        "--device",
        metavar="URL",
        help="write there, by the measuring program: local, ssh://[USER@]HOST[:PORT], adb://[SERIAL] or qemu://CPU "
        "(default: here, in this process)",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="what `edgecomp device-bundle` made, if not in its default place"
    )
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="S", help="seconds that a device may take for a text (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace the file of --save-prefix")
    add_json(parser)
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write, and print the rates to standard error."""
    from edgecomp.exported.language_folder import TOKENIZER
    from edgecomp.files import require_writable_target
    from edgecomp.generation.folder import read_folder
    from edgecomp.generation.sampling import Sampler, Sampling
    from edgecomp.generation.text import Tokens

    _require_sense(arguments)
    sampler = Sampler(Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed))
    if arguments.save_prefix is not None:
        require_writable_target(arguments.save_prefix, overwrite=arguments.force)
    folder = read_folder(arguments.artifact)
    tokens = Tokens(folder.path / TOKENIZER, folder.vocabulary)
    # A program of ExecuTorch is run by the measuring program, here too: one that ends its runtime does not end this process.
    if arguments.device is None and folder.description.runtime == "executorch":
        arguments.device = "local"
        _require_sense(arguments)
    (_write_here if arguments.device is None else _write_there)(arguments, folder, tokens, sampler)


def _require_sense(arguments: argparse.Namespace) -> None:
    """Refuse what contradicts itself.

    Raises:
        ConfigError: it does.

    """
    from edgecomp.errors import ConfigError

    if arguments.prompt is None and not arguments.chat:
        raise ConfigError("what is to be written must be said: give --prompt TEXT, or --chat")
    if arguments.system is not None and not arguments.chat:
        raise ConfigError("--system is a message of a chat: give --chat too")
    if arguments.prompt == "":
        raise ConfigError("a prompt must hold at least one character, got none")
    if arguments.device is not None and (arguments.prefix is not None or arguments.save_prefix is not None):
        raise ConfigError(
            "--prefix and --save-prefix keep what ONNX Runtime computed in this process: leave them out with --device, and with a "
            "model for ExecuTorch, which keeps its cache itself"
        )
    for name, value in (("--max-tokens", arguments.max_tokens), ("--threads", arguments.threads), ("--timeout", arguments.timeout)):
        if not value >= 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")


def _write_here(arguments: argparse.Namespace, folder: Folder, tokens: Tokens, sampler: Sampler) -> None:
    """Write in this process."""
    from edgecomp.generation.prefix import load_prefix, save_prefix
    from edgecomp.generation.session import Session
    from edgecomp.generation.writing import Writer

    if folder.foreign_library is not None and not arguments.quiet:
        print(f"notice: the library in {folder.path} is for {folder.foreign_library}; here the installed one runs", file=sys.stderr)
    session = Session(folder, arguments.library, arguments.threads, arguments.context)
    if arguments.prefix is not None:
        load_prefix(session, arguments.prefix)
    _write(Writer(session, tokens, sampler), arguments, folder, tokens)
    if arguments.save_prefix is not None:
        save_prefix(session, arguments.save_prefix, overwrite=arguments.force)


def _write_there(arguments: argparse.Namespace, folder: Folder, tokens: Tokens, sampler: Sampler) -> None:
    """Write on a device; nothing of the session stays there, however it ends."""
    from edgecomp.devices import open_device
    from edgecomp.devices.session import Session as DeviceSession
    from edgecomp.generation.on_device import DeviceWriter

    with open_device(arguments.device) as device:
        session = DeviceSession(device, arguments.bundle)
        options = {"library": arguments.library, "threads": arguments.threads, "context": arguments.context}
        with DeviceWriter(session, folder, tokens, sampler, timeout_s=arguments.timeout, **options) as writer:
            _write(writer, arguments, folder, tokens)


def _write(writer: TextWriter, arguments: argparse.Namespace, folder: Folder, tokens: Tokens) -> None:
    """All turns, and what `--json` tells of them."""
    turns = _chat(arguments, folder.path) if arguments.chat else iter([(arguments.prompt, None)])
    records: list[dict[str, Any]] = []
    for text, answered in turns:
        beginning = tokens.encode(text, special=answered is None)
        answer = _turn(writer, beginning, arguments, records)
        if answered is not None:
            answered.append(answer)
    if arguments.json:
        held = writer.held()
        memory = {"peak_bytes": held.peak, "anonymous_bytes": held.anonymous, "cache_bytes": held.cache}
        print_json({"device": arguments.device, "turns": records, **memory})


def _chat(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The text of each turn, and a list that takes the answer to it."""
    from edgecomp.generation.chat import Message, Template

    template = Template(folder)
    messages: list[Message] = [] if arguments.system is None else [{"role": "system", "content": arguments.system}]
    said = iter([arguments.prompt]) if arguments.prompt is not None else _lines(arguments.quiet)
    for message in said:
        messages.append({"role": "user", "content": message})
        answered: list[str] = []
        yield template(messages), answered
        messages.append({"role": "assistant", "content": answered[0]})


def _lines(quiet: bool) -> Iterator[str]:
    """Messages from standard input, one a line; empty ones are passed over."""
    asks = sys.stdin.isatty() and not quiet
    while True:
        if asks:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _turn(writer: TextWriter, beginning: list[int], arguments: argparse.Namespace, records: list[dict[str, Any]]) -> str:
    """Write one text; Ctrl-C ends it behind a whole character, and what was done is told all the same."""
    from edgecomp.errors import visible
    from edgecomp.generation.writing import Rates

    def show(piece: str) -> None:
        if not arguments.json:
            print(visible(piece), end="", flush=True)

    rates, text = Rates(), ""
    try:
        text = writer.write(beginning, arguments.max_tokens, show, rates)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"behind {rates.tokens} tokens") from interrupt
    finally:
        if rates.prompt_tokens and not arguments.json:
            print(flush=True)
            if not arguments.quiet:
                print(_told(rates, writer.held()), file=sys.stderr)
    records.append(
        {
            "text": text,
            "prompt_tokens": rates.prompt_tokens,
            "cached_tokens": rates.cached_tokens,
            "prompt_tokens_per_s": rates.prompt_rate,
            "tokens": rates.tokens,
            "tokens_per_s": rates.rate,
        }
    )
    return text


def _told(rates: Rates, held: Held) -> str:
    def rate(value: float | None) -> str:
        return "" if value is None else f" at {value:.1f} a second"

    cached = f" ({rates.cached_tokens} more were in the cache)" if rates.cached_tokens else ""
    parts = [
        f"prompt: {rates.prompt_tokens} tokens{rate(rates.prompt_rate)}{cached}",
        f"text: {rates.tokens} tokens{rate(rates.rate)}",
    ]
    if held.peak is not None:
        anonymous = "" if held.anonymous is None else f", {held.anonymous / 1e6:.0f} MB anonymous"
        parts.append(f"memory: {held.peak / 1e6:.0f} MB at most{anonymous}, {held.cache / 1e6:.1f} MB of it for the cache")
    return "; ".join(parts)
