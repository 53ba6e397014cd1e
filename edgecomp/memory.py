"""Memory that there is: what would want more of it is refused before it begins.

A system that has promised more than it has ends a process without a word, hours into its work.
"""

from __future__ import annotations

from pathlib import Path

import torch

from edgecomp.errors import ConfigError

_ROOT = Path("/")
# A control group's files: its limit, what it uses, and of that the pages of files, which the system can drop.
_V2 = ("memory.max", "memory.current", ("active_file", "inactive_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))


def require_memory(needed: int, what: str, instead: str, device: torch.device) -> None:
    """Refuse what needs more memory than is available.

    Args:
        needed: bytes.
        what: what needs them, with where: the beginning of the message.
        instead: the way out.
        device: whose memory; a processor's or a CUDA device's. Of others nothing is known, and nothing refused.

    Raises:
        ConfigError: with both numbers.

    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for whom asks next
        available: int | None = torch.cuda.mem_get_info(device)[0] + cached
    else:
        available = available_bytes() if device.type == "cpu" else None
    if available is not None and needed > available:
        raise ConfigError(
            f"{what} needs {_amount(needed)} of memory, and {_amount(available)} are available on {device}: {instead}"
        )


def available_bytes(root: Path = _ROOT) -> int | None:
    """Bytes that this process can take: what the system can give, within the limits of its control groups; None if nothing says.

    Swap counts: what fits with its help is slow, and not for us to refuse.

    Args:
        root: where `proc` and `sys` lie.

    """
    system = _numbers(root / "proc/meminfo")
    if "MemAvailable" not in system:
        return None
    rooms = [1024 * system["MemAvailable"]]
    rooms += [room for folder, files in _groups(root) if (room := _room(folder, *files)) is not None]
    return max(0, min(rooms)) + 1024 * system.get("SwapFree", 0)


def _groups(root: Path) -> list[tuple[Path, tuple[str, str, tuple[str, ...]]]]:
    """The folders of the control groups that this process is in, each with those above it, and the names of their files.

    In a container the paths may be the host's, of which only the top is to be seen.
    """
    found: list[tuple[Path, tuple[str, str, tuple[str, ...]]]] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (root / "sys/fs/cgroup/memory", _V1) if controllers else (root / "sys/fs/cgroup", _V2)
        folder = top / path.lstrip("/")
        found += [(place, files) for place in (folder, *folder.parents) if place.is_relative_to(top)]
    return found


def _room(folder: Path, limit: str, used: str, droppable: tuple[str, ...]) -> int | None:
    """Bytes below a control group's limit; None where there is no limit."""
    most, taken = _text(folder / limit).strip(), _text(folder / used).strip()
    if not most.isdecimal() or not taken.isdecimal():
        return None
    pages = _numbers(folder / "memory.stat")
    return int(most) - int(taken) + sum(pages.get(name, 0) for name in droppable)


def _numbers(path: Path) -> dict[str, int]:
    """Of lines such as `name: 12 kB` or `name 12`, the number by name."""
    lines = [line.replace(":", " ").split() for line in _text(path).splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):  # absent on other systems, and where a container hides it
        return ""


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
