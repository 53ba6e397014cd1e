"""Programs that are spoken with by lines: what they write, how they end, and what no answer has."""

from __future__ import annotations

import pytest

from edgecomp.devices.running import Running
from edgecomp.errors import DeviceError


def shell(script: str) -> Running:
    return Running(["sh", "-c", script])


def test_lines_go_both_ways() -> None:
    program = shell('read a; echo "<$a>"; read b; printf "<$b>"; echo said >&2; exit 3')
    program.send("one\n")
    assert program.line(60) == "<one>"
    program.send("two\n")
    done = program.finish(60)
    assert (done.exit_code, done.stdout, done.stderr) == (3, "<two>", "said\n")
    assert program.line(60) is None
    program.end()
    program.end()


def test_a_program_that_a_signal_ends() -> None:
    program = shell("kill -9 $$")
    assert program.finish(60).exit_code == 128 + 9
    program.end()


def test_a_program_that_says_nothing() -> None:
    program = shell("sleep 100")
    with pytest.raises(DeviceError, match=r"did not answer within 0\.01 s"):
        program.line(0.01)
    program.end()


def test_a_program_that_writes_without_end() -> None:
    program = shell("yes")
    assert program.line(60) == "y"
    with pytest.raises(DeviceError, match="more than 16,777,216 bytes at its end"):
        program.finish(60)
    program.end()


def test_a_program_that_there_is_not() -> None:
    with pytest.raises(DeviceError, match="/no/such/program cannot be started"):
        Running(["/no/such/program"])
