"""On what kind of file system a file lies, as far as Linux tells."""

from __future__ import annotations

from pathlib import Path

_MOUNT = "mnt_id:"


def file_system(descriptor: int) -> str:
    """Name the kind of file system that an open file lies on.

    The mount is asked for, not the device: files of btrfs and of overlays have devices that no mount has.

    Returns:
        The kind as the kernel calls it, such as ``ext4`` or ``nfs4``; empty where it can't be told.
    """
    try:
        facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
        number = next(line for line in facts if line.startswith(_MOUNT)).removeprefix(_MOUNT).strip()
        with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="replace") as mounts:
            mount = next(line for line in mounts if line.split(" ", 1)[0] == number)
    except (OSError, StopIteration):  # another system, or a mount that this process can't see
        return ""
    return mount.partition(" - ")[2].split(" ", 1)[0]
