"""The parts of a Raspberry Pi that a Python process sees, in a folder: programs, wheels, and the files about the CPU.

Everything comes from the package mirrors that this machine's own apt and pip use. Nothing is installed, and no rights
are needed: packages are downloaded into the folder and unpacked there, those of this machine's kind (qemu) as well.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BOARDS", "HERE", "RUNTIMES", "Board", "set_up"]

HERE = Path(__file__).resolve().parent
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PYTHON = ("python3", "libstdc++6", "libatomic1")


@dataclass(frozen=True)
class Board:
    """A kind of Raspberry Pi.

    Attributes:
        debian: the architecture as Debian calls it.
        qemu: the emulator's program.
        cpu: as qemu calls it.
        wheels: tags of the platforms whose wheels run there.
        runtimes: which have wheels, and what each needs.
        packages: Debian packages beside Python.
        features: as /proc/cpuinfo has them.
    """

    debian: str
    qemu: str
    cpu: str
    wheels: tuple[str, ...]
    runtimes: Mapping[str, Sequence[str]]
    packages: tuple[str, ...]
    features: str


_GLIBC = ("manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17")
BOARDS = {
    "aarch64": Board(
        "arm64",
        "qemu-aarch64",
        "cortex-a72",
        tuple(f"{each}_aarch64" for each in _GLIBC),
        {
            "ai-edge-litert": ("ai-edge-litert==2.3.0", "numpy==1.26.4"),
            "tflite-runtime": ("tflite-runtime==2.14.0", "numpy==1.26.4"),
        },
        _PYTHON,
        "fp asimd evtstrm crc32 cpuid",
    ),
    "armv7l": Board(
        "armhf",
        "qemu-arm",
        "cortex-a15",
        tuple(f"{each}_armv7l" for each in _GLIBC),
        {"tflite-runtime": ("tflite-runtime==2.14.0",)},
        (*_PYTHON, "python3-numpy"),
        "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32",
    ),
}
"""A Raspberry Pi 4 with a 64-bit and with a 32-bit system."""
RUNTIMES = ["ai-edge-litert", "tflite-runtime"]


def set_up(folder: Path, name: str) -> None:
    """Makes ``folder/name`` with the board's programs and wheels, ``folder/host`` with qemu, and the plugin.

    What is there already is left as it is.

    Raises:
        SystemExit: this machine has no apt with a Debian mirror, or no C compiler.
    """
    folder = folder.resolve()
    board = BOARDS[name]
    if not (folder / "host" / "done").exists():
        _unpack(folder / "host", _host_architecture(), ("qemu-user",))
        (folder / "host" / "done").touch()
    root = folder / name
    if not (root / "done").exists():
        _unpack(root, board.debian, board.packages)
        _describe_cpu(root, board)
        for runtime, wanted in board.runtimes.items():
            _unpack_wheels(root / "site" / runtime, board, wanted)
        (root / "done").touch()
    _compile(folder)


def _host_architecture() -> str:
    return _run(["dpkg", "--print-architecture"]).strip()


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is missing: this needs Debian (apt, dpkg) and gcc.") from None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _mirror() -> str:
    """The address from which this machine has Debian itself."""
    known = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
    for address in known:
        if address.rstrip("/").endswith("/debian"):
            return address
    raise SystemExit("No Debian mirror among this machine's apt sources: this needs a Debian machine.")


def _unpack(root: Path, architecture: str, packages: Sequence[str]) -> None:
    """Downloads packages of Debian 12 with all that they depend on, and unpacks them side by side."""
    print(f"Downloading {', '.join(packages)} for {architecture}.", flush=True)
    state = root / "apt"
    for below in ("lists/partial", "archives/partial"):
        (state / below).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_mirror()} bookworm main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "-",
    }
    apt = ["apt-get", "--yes", "--quiet", *(f"-o{key}={value}" for key, value in settings.items())]
    _run([*apt, "update"])
    _run([*apt, "install", "--download-only", *packages])
    for package in sorted((state / "archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)])
    shutil.rmtree(state)


def _unpack_wheels(site: Path, board: Board, wanted: Sequence[str]) -> None:
    print(f"Downloading {', '.join(wanted)}.", flush=True)
    wheels = site / "wheels"
    platforms = [f"--platform={each}" for each in board.wheels]
    alone = ["--no-deps"] if len(wanted) == 1 else []
    choice = ["--python-version=3.11", "--only-binary=:all:", f"--dest={wheels}"]
    _run([sys.executable, "-m", "pip", "download", "--quiet", *platforms, *choice, *alone, *wanted])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(site)
    shutil.rmtree(wheels)


def _describe_cpu(root: Path, board: Board) -> None:
    """Writes the files from which libraries learn what CPU they run on.

    Left to themselves they would see this machine's: cpuinfo, which XNNPACK asks, would find no ARM core there and
    ai-edge-litert would end with SIGSEGV. With these, kernels for the Cortex-A72 are chosen, as on a Pi 4.
    """
    core = f"BogoMIPS : 108.00\nFeatures : {board.features}\nCPU implementer : 0x41\nCPU architecture: 8\n"
    core += "CPU variant : 0x0\nCPU part : 0xd08\nCPU revision : 3\n\n"
    files = {"proc/cpuinfo": "".join(f"processor : {each}\n{core}" for each in range(4))}
    cpus = "sys/devices/system/cpu"
    files.update({f"{cpus}/{each}": "0-3" for each in ("possible", "present", "online")})
    files[f"{cpus}/kernel_max"] = "255"
    for index in range(4):
        about = {
            "topology/physical_package_id": "0",
            "topology/core_id": str(index),
            "topology/cluster_cpus_list": "0-3",
            "topology/core_siblings_list": "0-3",
            "topology/package_cpus_list": "0-3",
            "topology/thread_siblings_list": str(index),
            "cpufreq/cpuinfo_max_freq": "1800000",
            "cpufreq/cpuinfo_min_freq": "600000",
            "cache/index2/level": "2",
            "cache/index2/size": "1024K",
            "cache/index2/shared_cpu_list": "0-3",
        }
        files.update({f"{cpus}/cpu{index}/{key}": value for key, value in about.items()})
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text if text.endswith("\n") else f"{text}\n")


def _compile(folder: Path) -> None:
    source = HERE / "counting.c"
    stamp = folder / f"counting-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.so"
    if not stamp.exists():
        _run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(stamp), str(source)])
    link = folder / "counting.so"
    link.unlink(missing_ok=True)
    link.symlink_to(stamp.name)
