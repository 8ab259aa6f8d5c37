"""A script inside the rehearsal's environment: one notebook, executed as Kaggle executes it.

Needs ``nbclient`` and the standard library; the kit itself has to come from what is mounted. Reads what to do
from its input as JSON, says on its error output which cell begins, and prints what came of it as JSON, in its
last line.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40  # linux/sockios.h, net/if.h
OUTSIDE = ("192.0.2.1", 80)  # an address for documentation, nobody's


def main() -> None:
    """Execute the notebook of the input; what it printed and the fault that ended it go to the output."""
    task = json.load(sys.stdin)
    _bring_loopback_up()
    _obey_permissions()
    found = {"network": _reaches_out(), "writable": _can_write(task["inputs"])}
    printed, fault = _execute(task)
    print("\n" + json.dumps({**found, "printed": printed, "fault": fault}))


def _execute(task: dict[str, Any]) -> tuple[str, str | None]:
    import nbclient
    import nbformat

    notebook = nbformat.read(task["notebook"], as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = [f"{name} = {value!r}" for name, value in task["parameters"].items()]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    resources = {"metadata": {"path": task["folder"]}}
    places = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]

    def begin(cell: Any, cell_index: int) -> None:
        if cell_index in places:
            print(f"cell {places.index(cell_index) + 1} of {len(places)}", file=sys.stderr, flush=True)

    client = nbclient.NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources=resources, on_cell_start=begin
    )
    fault = None
    try:
        client.execute()
    except (nbclient.exceptions.CellExecutionError, nbclient.exceptions.DeadKernelError) as error:
        fault = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[-1]
    nbformat.write(notebook, task["executed"])
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream"), fault


def _bring_loopback_up() -> None:
    """A new network namespace has its loopback down, over which notebook and kernel talk."""
    with contextlib.suppress(OSError), socket.socket() as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP | IFF_RUNNING))


def _obey_permissions() -> None:
    """Let root, too, write only where permissions allow, in every process that this one starts."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def _reaches_out() -> bool:
    """Whether a connection to outside is even tried: with the network off the system refuses at once."""
    try:
        with socket.create_connection(OUTSIDE, timeout=1):
            return True
    except TimeoutError:
        return True
    except OSError:
        return False


def _can_write(inputs: str) -> bool:
    """Whether a process such as the notebook's could write among the inputs."""
    code = "import sys; open(sys.argv[1] + '/written', 'w')"
    done = subprocess.run([sys.executable, "-c", code, inputs], capture_output=True, check=False)
    Path(inputs, "written").unlink(missing_ok=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
