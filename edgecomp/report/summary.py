"""The page in Markdown, for a ticket or a chat: verdict, figures, requirements, table."""

from __future__ import annotations

from collections.abc import Iterator

from edgecomp.acceptance import Verdict
from edgecomp.report.headline import Headline
from edgecomp.report.table import Table


def to_markdown(title: str, headline: Headline | None, verdict: Verdict | None, table: Table | None) -> str:
    """What the button of the page copies."""
    parts = [f"## {title}"]
    if verdict is not None:
        parts.append(verdict.to_markdown().rstrip("\n"))
    if headline is not None:
        parts.append("\n".join(_figures(headline)))
    if table is not None and table.rows:
        parts.append(table.to_markdown().rstrip("\n"))
    return "\n\n".join(parts) + "\n"


def _figures(headline: Headline) -> Iterator[str]:
    yield f"{headline.subject}{''.join(f'; {role}: {name}' for role, name in headline.peers)}"
    yield ""
    for tile in headline.tiles:
        lines = "".join(f"; {what}: {value}" for what, value in tile.lines)
        yield f"- **{tile.title}: {tile.value}**{lines} ({'; '.join(tile.caveats)})"
