"""A stand-in for a Raspberry Pi 4 on the desk: QEMU's emulation of a whole machine with its processor, Debian's kernel, and ssh.

What is real: the AArch64 kernel and its memory figures, the ssh server (dropbear) and the client that reaches it, processes and
signals. What is not: the board, a disk (files are in memory), and how long anything takes.

    python tests/device/raspberry_pi.py build/pi          makes the kernel and the file system, by Debian's arm64 packages
    python tests/device/raspberry_pi.py build/pi5 16k     the same with pages of 16 KiB, as a Raspberry Pi 5 has them
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("busybox-static", "dropbear-bin", "libc6", "libcrypt1", "libtomcrypt1", "libtommath1", "zlib1g", "libgmp10")
KERNEL = "linux-image-cloud-arm64"  # names the current kernel's package
# The same of pages of 16 KiB, and the release that has it where the machine's own does not. Packages are verified by the machine's
# own keyring.
KERNEL_16K, RELEASE_16K = "linux-image-arm64-16k", "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
MEMORY_MIB = 1024  # the smallest Raspberry Pi 4
BOOT_S = 240

# Runs as the first process. /small and /filling are file systems with little room and with some, /noexec one that programs may
# not be run on.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /small /filling /noexec /root/.cache
mount -t devpts pts /dev/pts
mount -t tmpfs tmpfs /root/.cache
mount -t tmpfs -o size=2m tmpfs /small
mount -t tmpfs -o size=96m tmpfs /filling
mount -t tmpfs -o noexec tmpfs /noexec
for module in {modules}; do test -e /modules/$module.ko && insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
chmod 700 /root /root/.ssh
dropbearkey -t ed25519 -f /etc/host_key >/dev/null 2>&1
exec dropbear -F -E -s -r /etc/host_key -p 22
"""


def build(folder: Path, key: Path, *, pages_16k: bool = False) -> None:
    """Write `kernel` and `initrd` into the folder; the key's owner may log in as root."""
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    for package in _fetch(folder / "packages", pages_16k=pages_16k):
        _run("dpkg-deb", "--extract", package, root)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    shutil.copyfile(kernel, folder / "kernel")
    system = folder / "initrd-root"
    shutil.rmtree(system, ignore_errors=True)
    for name in ("bin", "etc", "proc", "sys", "dev", "root/.ssh", "tmp", "modules"):
        (system / name).mkdir(parents=True)
    for path in root.rglob("*.ko"):
        if path.stem in MODULES:
            shutil.copyfile(path, system / "modules" / path.name)
    for path in root.rglob("*.ko.xz"):  # newer kernels pack them, and busybox does not unpack these
        if path.name.partition(".")[0] in MODULES:
            (system / "modules" / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    shutil.copy(root / "bin" / "busybox", system / "bin" / "busybox")
    for name in ("sbin/dropbear", "bin/dropbearkey"):
        shutil.copy(root / "usr" / name, system / "bin" / Path(name).name)
    # Beside the kernel's packages only the server has libraries: the programs that are measured bring their own.
    shutil.copytree(root / "lib" / "aarch64-linux-gnu", system / "lib" / "aarch64-linux-gnu", symlinks=True)
    shutil.copytree(root / "usr/lib/aarch64-linux-gnu", system / "lib" / "aarch64-linux-gnu", symlinks=True, dirs_exist_ok=True)
    shutil.copy(root / "lib" / "ld-linux-aarch64.so.1", system / "lib", follow_symlinks=True)
    (system / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (system / "etc" / "os-release").write_text('PRETTY_NAME="Raspberry Pi stand-in, emulated"\n')
    (system / "root" / ".ssh" / "authorized_keys").write_bytes(key.with_suffix(".pub").read_bytes())
    (system / "root" / ".ssh" / "authorized_keys").chmod(0o600)
    init = system / "init"
    init.write_text(INIT.format(modules=" ".join(MODULES)))
    init.chmod(0o755)
    names = subprocess.run(["find", ".", "-print0"], cwd=system, check=True, capture_output=True).stdout
    archive = subprocess.run(
        ["cpio", "--null", "--create", "--format=newc", "--owner=root:root", "--quiet"],
        cwd=system,
        input=names,
        check=True,
        capture_output=True,
    )
    (folder / "initrd").write_bytes(gzip.compress(archive.stdout, 1))


def _fetch(folder: Path, *, pages_16k: bool) -> list[Path]:
    """The arm64 packages, by the machine's own package sources and a state of our own: the machine's stays as it is."""
    found = _download(folder, KERNEL_16K if pages_16k else KERNEL, RELEASE_16K if pages_16k else None, ())
    return [*found, *_download(folder / "system", None, None, PACKAGES)]


def _download(folder: Path, kernel: str | None, release: str | None, packages: Sequence[str]) -> list[Path]:
    """A kernel or packages, of the machine's release or another one."""
    for name in ("state/lists/partial", "cache/archives/partial", "downloads"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "state" / "status").touch()
    options = [
        "-o",
        f"Dir::State={folder}/state",
        "-o",
        f"Dir::State::status={folder}/state/status",
        "-o",
        f"Dir::Cache={folder}/cache",
    ]
    options += ["-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64", "-o", "APT::Sandbox::User=root"]
    done = sorted((folder / "downloads").glob("*.deb"))
    if done:
        return done
    if release is not None:
        origin = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()[0]
        (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {origin} {release} main\n")
        options += ["-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o", "Dir::Etc::sourceparts=-"]
    _run("apt-get", *options, "-qq", "update")
    wanted = list(packages)
    if kernel is not None:
        depends = _run("apt-cache", *options, "depends", kernel)
        wanted.append(next(line.split()[1] for line in depends.splitlines() if "Depends: linux-image-" in line))
    _run("apt-get", *options, "-qq", "download", *wanted, cwd=folder / "downloads")
    return sorted((folder / "downloads").glob("*.deb"))


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with code {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


class RaspberryPi:
    """A booted stand-in; `url` reaches it, by the client configuration in `ssh_config`.

    Args:
        image: the folder that `build` wrote.
        processor: that QEMU emulates: a Raspberry Pi 4's, or a 5's, which has pages of 16 KiB.
        folder: for the client's configuration and the console's log.
        key: the private key that may log in.

    """

    def __init__(self, image: Path, folder: Path, key: Path, processor: str = "cortex-a72") -> None:
        self._folder, self._key = folder, key
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.ssh_config = folder / "ssh_config"
        self.ssh_config.write_text(
            "Host raspberrypi\n  HostName 127.0.0.1\n"
            f"  Port {self.port}\n  User root\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
            f"  StrictHostKeyChecking accept-new\n  UserKnownHostsFile {folder}/known_hosts\n"
        )
        self.url = "ssh://raspberrypi"
        self._console = (folder / "console.log").open("wb")
        # The emulated machine reaches nothing, and is reached from this machine's loopback address alone.
        network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", processor, "-smp", "2", "-m", str(MEMORY_MIB), "-nographic"]
        command += ["-kernel", str(image / "kernel"), "-initrd", str(image / "initrd"), "-append", "console=ttyAMA0 quiet panic=-1"]
        command += ["-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=", "-no-reboot"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._console, stderr=subprocess.STDOUT)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                log = (self._folder / "console.log").read_text(errors="replace")
                raise RuntimeError(f"the stand-in must boot within {BOOT_S} s; its console says: {log[-2000:]}")
            time.sleep(0.5)

    def _answers(self) -> bool:
        """Whether the server introduces itself; QEMU takes connections before."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    @property
    def ssh_command(self) -> list[str]:
        """The client with this machine's configuration."""
        return ["ssh", "-F", str(self.ssh_config)]

    def shell(self, script: str) -> str:
        """What a script writes there."""
        done = subprocess.run([*self.ssh_command, "raspberrypi", script], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def stop(self) -> None:
        """Switch it off, as by its plug."""
        self.process.kill()
        self.process.wait()
        self._console.close()


def make_key(folder: Path) -> Path:
    """A key pair without a passphrase; the private key's path."""
    key = folder / "id_ed25519"
    if not key.exists():
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    return key


def main(arguments: Sequence[str]) -> None:
    """Make the image, and the key that may log in; a second argument `16k` is of the pages' size."""
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    build(folder, make_key(folder), pages_16k=list(arguments[1:]) == ["16k"])
    for name in ("kernel", "initrd"):
        size = (folder / name).stat().st_size
        sys.stdout.write(f"{name}: {size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1:])
