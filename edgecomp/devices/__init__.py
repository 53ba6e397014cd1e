"""Machines that artifacts are measured on: this one, boards over ssh, phones over adb, and emulated processors.

    with open_device("ssh://pi@raspberrypi") as device:
        print(Session(device).machine())

`TRANSPORTS` lists the kinds of devices; see `edgecomp.devices.base.Device` for what each does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from edgecomp.devices.adb import AdbDevice
from edgecomp.devices.base import Device
from edgecomp.devices.local import LocalDevice
from edgecomp.devices.qemu import QemuDevice
from edgecomp.devices.ssh import SshDevice
from edgecomp.errors import ConfigError

TRANSPORTS: Mapping[str, Callable[[SplitResult], Device]] = {
    "local": LocalDevice,
    "ssh": SshDevice,
    "adb": AdbDevice,
    "qemu": QemuDevice,
}


@contextlib.contextmanager
def open_device(url: str, *, count_instructions: bool = False) -> Iterator[Device]:
    """The device at `url`, cleaned up when the block ends, however it ends.

    Args:
        url: `local`, or as `TRANSPORTS` has them.
        count_instructions: where the device can (an emulator), each run leaves the count of its marked instructions in a file.

    Raises:
        ConfigError: the URL names no kind of device that there is, or is not complete.

    """
    parts = urlsplit(url if ":" in url else f"{url}://")
    if parts.scheme not in TRANSPORTS:
        raise ConfigError(f"a device must be local, ssh://[USER@]HOST[:PORT][/FOLDER], adb://[SERIAL] or qemu://CPU, got {url!r}")
    device = TRANSPORTS[parts.scheme](parts)
    if isinstance(device, QemuDevice):
        device.count_instructions = count_instructions
    try:
        yield device
    finally:
        device.clean_up()
