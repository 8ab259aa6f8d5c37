"""What processes do for the tests of running together: they import it, so it needs no more than they have."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hpa_kit.errors import InputError

RANK = int(os.environ.get("RANK", "-1"))
FOREVER = 10_000


def says(settings):
    logging.info(f"log of {RANK}")
    if RANK == 1:
        print(f"{settings.train} fields in {settings.out}, kit of {Path(sys.modules['hpa_kit'].__file__)}")
        print("without an end", end="")
    else:
        sys.stderr.write("\rbar 1 of 2\rbar 2 of 2")
        print("\nünd Zeichen")


def says_lines_of_several_words(settings):
    (settings.out / f"ready{RANK}").touch()
    _wait_for(settings.out / f"ready{1 - RANK}")
    for number in range(settings.train):
        print("line", number, "of process", RANK)


def fails(settings):
    """The second cannot use its input; the first fails by that, and is heard earlier than it."""
    if RANK == 0:
        _wait_for(settings.out / "failed")
        raise ConnectionError("the other is gone")
    try:
        raise InputError("fields: the second process cannot read on")
    finally:
        (settings.out / "failed").touch()


def breaks(settings):
    if RANK == 1:
        raise ZeroDivisionError("a fault of the kit")
    time.sleep(FOREVER)


def is_killed(settings):
    """Where memory runs out the system ends the process that has most; the other fails by that."""
    lock = (settings.out / "lock").open("w")
    if RANK == 1:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (settings.out / "locked").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    _wait_for(settings.out / "locked")
    fcntl.flock(lock, fcntl.LOCK_EX)  # waits until the other is gone
    raise ConnectionError("the other is gone")


def fills_the_disk(settings):
    raise OSError(28, "No space left on device", "events")


def does_not_listen(settings):
    """The first has a child of its own and ends by force only."""
    if RANK == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", str(FOREVER)])
        (settings.out / "child").write_text(str(child.pid))
        (settings.out / "deaf").touch()
        time.sleep(FOREVER)
    _wait_for(settings.out / "deaf")
    raise InputError("fields: none")


def leaves_a_child(settings):
    """What it started holds its output and outlives it."""
    if RANK == 1:
        subprocess.Popen(["sleep", str(FOREVER)])


def waits(settings):
    """A file is locked as long as the process lives."""
    lock = (settings.out / f"lock{RANK}").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    print(f"ready {RANK}")
    time.sleep(FOREVER)


def _wait_for(path):
    while not path.exists():
        time.sleep(0.01)
