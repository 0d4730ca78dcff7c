"""What must be in a wheel of csraxis, and what must not, on any platform: `python .ci/check_wheel.py WHEEL...`."""

import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

LARGEST = 5_000_000
NEEDED = {
    "csraxis/py.typed",
    "csraxis/kernels_cy/__init__.py",
    "csraxis/kernels_nb/_kernels.py",
    "csraxis/pp/__init__.py",
    "csraxis/sklearn/__init__.py",
}
SOURCES = (".c", ".pyx", ".pxi", ".npz")
LIBRARIES = (".so", ".pyd")
# One thread pool for both engines: no run-time library of OpenMP (GNU's, LLVM's, Intel's, Microsoft's).
OPENMP = (b"libgomp", b"libomp", b"libiomp", b"vcomp1")


def wrong(wheel: Path) -> list[str]:
    """What is wrong with a wheel, a line each."""
    _, version, python, abi, platform = wheel.stem.split("-")
    free_threaded = abi.endswith("t")
    found = []
    if not free_threaded and (python, abi) != ("cp311", "abi3"):
        found.append(f"is for {python}-{abi}, not for cp311-abi3")
    if wheel.stat().st_size > LARGEST:
        found.append(f"has {wheel.stat().st_size:,} bytes, more than {LARGEST:,}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = f"csraxis-{version}.dist-info"
        metadata = message_from_bytes(archive.read(f"{about}/METADATA"))
        libraries = [name for name in names if name.endswith(LIBRARIES)]
        with_openmp = [name for name in libraries if any(mark in archive.read(name) for mark in OPENMP)]
    found += [f"{name} is missing" for name in sorted({*NEEDED, f"{about}/licenses/LICENSE"} - set(names))]
    if (metadata["License-Expression"], metadata["License-File"]) != ("BSD-3-Clause", "LICENSE"):
        found.append(f"license: {metadata['License-Expression']}, {metadata['License-File']}")
    # A wheel into which a library was grafted has a folder of these beside the package.
    strays = [name for name in names if not name.startswith(("csraxis/", about)) or name.endswith(SOURCES)]
    found += [f"{name} is a stray" for name in strays]
    found += [f"{name} uses OpenMP" for name in with_openmp]
    if not free_threaded and platform.startswith(("manylinux", "musllinux", "linux", "macosx")):
        found += [f"{name} is for one Python only" for name in libraries if not name.endswith(".abi3.so")]
    levels = ("v2", "v3", "v4") if platform.endswith("x86_64") else ("base",)
    expected = sorted(["_cpu", *(f"_kernels_{level}" for level in levels)])
    modules = sorted(name.split("/")[-1].split(".")[0] for name in libraries)
    if modules != expected:
        found.append(f"compiled modules: {', '.join(modules)}; expected {', '.join(expected)}")
    return found


def main() -> int:
    """Print what is wrong; 1 if anything is, or if there is nothing to look at."""
    wheels = [Path(name) for name in sys.argv[1:]]
    for wheel in wheels:
        found = wrong(wheel)
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes{'' if found else ', as it should be'}")
        print(*(f"    {line}" for line in found), sep="\n", end="\n" if found else "")
    return int(not wheels or any(map(wrong, wheels)))


if __name__ == "__main__":
    sys.exit(main())
