"""Temperatures, frequencies and throttling, read by the real runner from a made-up tree of the kernel's files."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from kernel_files import KernelFiles
from onnx_models import embedding_table, save_encoder

from edgecomp.bench.options import BenchOptions
from edgecomp.bench.record import Record
from edgecomp.bench.runner import run_benches

QUICK = BenchOptions(sequence=8, rounds=1, warmup=1, min_iterations=5, min_duration_s=0, max_spread=1e9, cooldown_s=20)


class Board(KernelFiles):
    """Files as a Raspberry Pi's kernel has them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.write("class/thermal/thermal_zone0/type", "cpu-thermal")
        self.write("class/thermal/thermal_zone0/temp", "48312")
        for cpu in range(2):
            self.write(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", "1800000")
        self.write("devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand")
        self.write("devices/platform/soc/soc:firmware/get_throttled", "0")
        self.write("firmware/devicetree/base/model", "Raspberry Pi 4 Model B Rev 1.4\0")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The tree that the device `board` reads; everything else is this machine's."""
    made = Board(tmp_path / "sys")
    made.add_device("board", monkeypatch)
    return made


def bench(tmp_path: Path, options: BenchOptions = QUICK) -> Record:
    return run_benches([save_encoder(tmp_path / "m.onnx", embedding_table())], options, devices=["board"])[0]


def test_the_boards_state_is_in_the_record(board: Board, tmp_path: Path) -> None:
    record = bench(tmp_path)
    assert record.validity.valid
    state = record.rounds[0].before
    assert state.temperatures_celsius == {"thermal_zone0 cpu-thermal": 48.312}
    assert state.frequencies_hz == [1_800_000_000, 1_800_000_000]
    assert state.throttling == {"get_throttled": 0}
    assert record.rounds[0].measurement.frequency_start_hz == 1_800_000_000
    assert record.environment is not None
    assert (record.environment.governor, record.environment.board) == ("ondemand", "Raspberry Pi 4 Model B Rev 1.4")


def test_a_hot_board_is_waited_for(board: Board, tmp_path: Path) -> None:
    board.write("class/thermal/thermal_zone0/temp", "84000")
    cooling = threading.Timer(1.0, board.write, ("class/thermal/thermal_zone0/temp", "55000"))
    cooling.start()
    record = bench(tmp_path)
    cooling.join()
    assert record.rounds[0].cooled_s >= 2.0
    assert record.rounds[0].before.hottest_celsius == 55.0
    assert record.validity.valid


def test_a_board_that_stays_hot_makes_the_record_invalid(board: Board, tmp_path: Path) -> None:
    board.write("class/thermal/thermal_zone0/temp", "84000")
    record = bench(tmp_path, replace(QUICK, cooldown_s=0))
    assert record.validity.reasons == ["round 1 began at 84.0 °C after 0 s of cooling down, above 70.0 °C"]


def test_a_throttled_board_makes_the_record_invalid(board: Board, tmp_path: Path) -> None:
    board.write("devices/platform/soc/soc:firmware/get_throttled", "50005")  # hexadecimal, as the firmware writes it
    record = bench(tmp_path)
    assert record.validity.reasons == ["round 1 ran throttled: get_throttled is 0x50005"]
