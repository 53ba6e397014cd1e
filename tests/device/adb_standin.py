"""A stand-in for the daemon of an Android phone, adbd: its protocol on a loopback port, for the real adb client.

    python adb_standin.py PORT FOLDER

What is real: the client, the protocol (connection without keys, shell v2 with exit codes, file sync), AArch64 programs. What is
not: the phone. Commands run in this machine's shell; /data/local/tmp is in FOLDER; the bundle's loader, and so what it starts, runs
under qemu-aarch64; `uname -m` says aarch64. The protocol: AOSP, packages/modules/adb, protocol.txt, SYNC.TXT and shell_protocol.h.
"""

from __future__ import annotations

import asyncio
import re
import struct
import subprocess
import sys
from pathlib import Path

LARGEST = 256 * 1024
VERSION = 0x01000001
CNXN, OPEN, OKAY, CLSE, WRTE = (int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE"))
BANNER = b"device::ro.product.name=standin;ro.product.model=StandIn;ro.product.device=standin;features=shell_v2,cmd,stat_v2"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
PHONE_FOLDER = "/data/local/tmp"
CPUINFO = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd0b\nCPU revision\t: 1\n"


class Phone:
    """Where the phone's files are, and how its commands run here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / PHONE_FOLDER[1:]).mkdir(parents=True, exist_ok=True)
        (root / "proc").mkdir(exist_ok=True)
        (root / "proc" / "cpuinfo").write_text(CPUINFO, encoding="ascii")

    def path(self, name: str) -> Path:
        """A file of the phone's; `pwd` there has already said where it is here."""
        return Path(name) if name.startswith(str(self.root)) else self.root / name.lstrip("/")

    def command(self, command: str) -> str:
        """A command as this machine's shell runs it."""
        command = re.sub(f"(?<!{re.escape(str(self.root))}){PHONE_FOLDER}", f"{self.root}{PHONE_FOLDER}", command)
        emulator = f"qemu-aarch64 -cpu cortex-a76 -L {self.root}"
        command = re.sub(r"(?<=exec )(\S*/ld-linux-aarch64\.so\.1)", rf"{emulator} \1", command)
        return command.replace("uname -m", "echo aarch64")


class Stream:
    """One service that the client opened: its bytes, each message waiting for the client's okay."""

    def __init__(self, connection: Connection, number: int, remote: int) -> None:
        self.connection, self.number, self.remote = connection, number, remote
        self.okay = asyncio.Event()
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._buffer = b""

    def feed(self, data: bytes | None) -> None:
        self._arrived.put_nowait(data)

    async def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self._arrived.get()
            if data is None:
                raise EOFError
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), LARGEST):
            self.okay.clear()
            self.connection.send(WRTE, self.number, self.remote, data[start : start + LARGEST])
            await self.okay.wait()

    def close(self) -> None:
        self.connection.send(CLSE, self.number, self.remote, b"")
        self.connection.streams.pop(self.number, None)


class Connection:
    """A client's connection with its streams."""

    def __init__(self, phone: Phone, writer: asyncio.StreamWriter) -> None:
        self.phone, self._writer = phone, writer
        self.streams: dict[int, Stream] = {}
        self._opened = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, command: int, first: int, second: int, data: bytes) -> None:
        self._writer.write(
            struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF) + data
        )

    async def serve(self, reader: asyncio.StreamReader) -> None:
        while True:
            command, first, second, size, _, _ = struct.unpack("<6I", await reader.readexactly(24))
            data = await reader.readexactly(size)
            stream = self.streams.get(second)
            if command == CNXN:
                self.send(CNXN, VERSION, LARGEST, BANNER)
            elif command == OPEN:
                self._open(first, data.rstrip(b"\0").decode())
            elif stream is None:
                continue
            elif command == OKAY:
                stream.okay.set()
            elif command == WRTE:
                stream.feed(data)
                self.send(OKAY, second, first, b"")
            elif command == CLSE:
                self.streams.pop(second).feed(None)
                stream.okay.set()

    def _open(self, remote: int, service: str) -> None:
        name, _, rest = service.partition(":")
        self._opened += 1
        stream = Stream(self, self._opened, remote)
        if name.startswith("shell,v2"):
            work = shell(stream, self.phone.command(rest))
        elif name == "sync":
            work = sync(stream, self.phone)
        else:
            self.send(CLSE, 0, remote, b"")
            return
        self.streams[stream.number] = stream
        self.send(OKAY, stream.number, remote, b"")
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def shell(stream: Stream, command: str) -> None:
    """Run a command; what the client sends is its input, its output and exit code go to the client."""
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_shell(command, stdin=pipe, stdout=pipe, stderr=pipe)

    async def feed(target: asyncio.StreamWriter) -> None:
        while True:
            try:
                number, size = struct.unpack("<BI", await stream.read(5))
                data = await stream.read(size)
            except EOFError:  # the client has gone, and what it started ends with it
                target.close()
                return
            if number == STDIN:
                target.write(data)
            elif number == CLOSE_STDIN:
                target.close()

    async def pump(source: asyncio.StreamReader | None, number: int) -> None:
        while source is not None and (data := await source.read(32768)):
            await stream.write(struct.pack("<BI", number, len(data)) + data)

    assert process.stdin is not None  # it was asked for
    feeding = asyncio.create_task(feed(process.stdin))
    await asyncio.gather(pump(process.stdout, STDOUT), pump(process.stderr, STDERR))
    code = await process.wait()
    feeding.cancel()
    await stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))
    stream.close()


async def sync(stream: Stream, phone: Phone) -> None:
    """Send and receive files."""
    while True:
        try:
            request, size = struct.unpack("<4sI", await stream.read(8))
        except EOFError:
            break
        if request == b"QUIT":
            break
        name = (await stream.read(size)).decode()
        if request == b"SEND":
            await receive(stream, phone, name)
        elif request == b"RECV":
            await send(stream, phone.path(name))
        elif request == b"STAT":
            mode, length, changed = status(phone.path(name))
            await stream.write(struct.pack("<4sIII", b"STAT", mode, length, changed))
        elif request in (b"STA2", b"LST2"):
            mode, length, changed = status(phone.path(name))
            error = 0 if mode else 2  # ENOENT
            await stream.write(
                struct.pack("<4sIQQIIIIQqqq", request, error, 0, 0, mode, 1, 0, 0, length, changed, changed, changed)
            )
    stream.close()


def status(path: Path) -> tuple[int, int, int]:
    """Mode, size and time of change; zeros where there is no file."""
    if not path.exists():
        return 0, 0, 0
    found = path.stat()
    return found.st_mode, found.st_size, int(found.st_mtime)


async def receive(stream: Stream, phone: Phone, name_and_mode: str) -> None:
    """A file from the client."""
    name, _, mode = name_and_mode.rpartition(",")
    path = phone.path(name)
    content = bytearray()
    while True:
        kind, size = struct.unpack("<4sI", await stream.read(8))
        if kind == b"DONE":
            break
        content += await stream.read(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(int(mode) & 0o777)
    await stream.write(b"OKAY\0\0\0\0")


async def send(stream: Stream, path: Path) -> None:
    """A file to the client."""
    if not path.is_file():
        message = b"No such file or directory"
        await stream.write(struct.pack("<4sI", b"FAIL", len(message)) + message)
        return
    content = path.read_bytes()
    for start in range(0, len(content), 64 * 1024):
        part = content[start : start + 64 * 1024]
        await stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
    await stream.write(b"DONE\0\0\0\0")


async def main(port: int, root: Path) -> None:
    """Serve until ended."""
    phone = Phone(root)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Connection(phone, writer).serve(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
