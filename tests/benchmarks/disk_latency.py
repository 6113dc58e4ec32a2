"""How long the disk takes for a new file at the moment, and waiting until that is as short as it should be.

After thousands of files have been deleted, some file systems (ext4 without a journal) pass over their inodes for
minutes, and making a file takes a hundred times longer. That would slow down the candidates that write files, and not
the others. So a comparison deletes nothing until it has ended, and looks at the disk before each measurement.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

FILES = 25  # of one look
USUAL = 60.0  # microseconds for a new file on a disk with nothing else to do
PAUSE = 5.0  # seconds between two looks


class DiskLatency:
    """What a new file costs, during one comparison.

    Args:
        patience: seconds to wait for a quiet disk, in all.
    """

    def __init__(self, patience):
        self._left, self._waited, self._looks = patience, 0.0, []

    def wait(self, folder):
        """Look, in new folders within this one; wait while the disk is slow and patience lasts."""
        while (microseconds := self._look(folder)) > USUAL and self._left > 0:
            if not self._waited:
                print(f"a new file takes {microseconds:.0f} us: waiting for the disk", file=sys.stderr, flush=True)
            pause = min(PAUSE, self._left)
            time.sleep(pause)
            self._left -= pause
            self._waited += pause
        self._looks.append(microseconds)

    def summary(self):
        """What it was when measurements began."""
        usual, worst = statistics.median(self._looks), max(self._looks)
        text = f"a new file takes {usual:.0f} us"
        if worst > USUAL:
            text += f", once {worst:.0f}, which slows down all that makes files"
        return f"{text}; waited {self._waited:.0f} s for the disk" if self._waited else text

    @staticmethod
    def _look(folder):
        """Microseconds of an empty file, the median of some; they stay, as deleting them would slow down the disk."""
        import tempfile

        there, times = tempfile.mkdtemp(prefix="disk-", dir=folder), []
        for number in range(FILES):
            begun = time.perf_counter()
            os.close(os.open(f"{there}/{number}", os.O_CREAT | os.O_WRONLY, 0o600))
            times.append(time.perf_counter() - begun)
        return statistics.median(times) * 1e6
