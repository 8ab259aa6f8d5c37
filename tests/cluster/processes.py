"""Forks the processes of clusters, which have all imported before.

A line on stdin asks for one, ``scheduler FILE`` or ``worker FILE``; its number is printed. The scheduler
writes the file. They go with this process's stdin.
"""

import asyncio
import logging
import os
import signal
import sys

import dask
import distributed

import hpa_kit.cells.segment
import hpa_kit.inference.made_fields
import hpa_kit.training.cell_features  # noqa: F401 - a worker loads nothing but members


async def scheduler(file: str) -> None:
    # A batch at which one worker dies is taken apart at once.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        async with distributed.Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as one:
            one.scheduler_file = file
            temporary = f"{file}.new"
            with open(temporary, "w", encoding="utf-8") as out:  # noqa: PTH123
                out.write(f'{{"address": "{one.address}"}}')
            os.replace(temporary, file)  # noqa: PTH105
            await one.finished()


async def worker(file: str) -> None:
    async with distributed.Worker(scheduler_file=file, nthreads=1, host="127.0.0.1", memory_limit=0) as one:
        await one.finished()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    os.setpgid(0, 0)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            logging.getLogger("distributed").setLevel(logging.CRITICAL)
            what, _, file = line.strip().partition(" ")
            asyncio.run({"scheduler": scheduler, "worker": worker}[what](file))
            os._exit(0)
        print(pid, flush=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
