"""Which devices share the work, and how much memory is free.

Of the machine or the container: what was only read from disk does not fill it.
"""

import pytest
import torch

from hpa_kit import devices
from hpa_kit.devices import pick_device, pick_devices
from hpa_kit.errors import InputError

GB = 10**9
ROOMY = "MemTotal: 64000000 kB\nMemFree: 1000000 kB\nMemAvailable: 50000000 kB\n"
# Of 16 GB, 15 are used: 2 by processes, 1 is shared memory, the rest are files that were read or written.
STAT = {"anon": 2 * GB, "file": 13 * GB, "shmem": GB, "inactive_file": 9 * GB, "active_file": 3 * GB}


def test_every_gpu_that_works_is_taken_by_itself(monkeypatch) -> None:
    def pick(name: str) -> str:
        if name == "cuda:1":
            raise InputError("no kernel image is available")
        return name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("hpa_kit.devices.pick_device", pick)
    assert pick_devices("auto") == ["cuda:0", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_devices("auto") == ["cpu"]


def test_devices_are_named_with_commas() -> None:
    assert pick_devices("cpu") == ["cpu"]
    assert pick_devices("cpu, cpu") == ["cpu", "cpu"]
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize("names", ["", ",", "gpu", "cpu,gpu", "auto,cuda:99"])
def test_devices_that_are_none_are_refused(names) -> None:
    with pytest.raises(InputError, match="device"):
        pick_devices(names)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Makes files as the kernel shows them, by their paths."""
    monkeypatch.setattr(devices, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(devices, "_GROUPS", tmp_path / "cgroup")
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def make(files):
        for name, content in ({"proc/meminfo": ROOMY} | files).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")

    return make


def stat(values, prefix=""):
    return "\n".join(f"{prefix}{name} {value}" for name, value in values.items())


def second(folder, limit, used, values=STAT):
    """Files of a group of version 2."""
    named = {"memory.max": limit, "memory.current": used, "memory.stat": stat(values)}
    return {f"cgroup/{folder}{name}": content for name, content in named.items()}


def first(folder, limit, used, values=STAT):
    """Files of a group of version 1, whose own part of a sum stands before the whole."""
    own = stat(dict.fromkeys(values, 0)) + "\n" + stat(values, "total_")
    named = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": own}
    return {f"cgroup/memory/{folder}{name}": content for name, content in named.items()}


@pytest.mark.parametrize("version", [first, second])
def test_what_the_system_keeps_of_files_is_free_and_shared_memory_is_not(system, version):
    system(version("", 16 * GB, 15 * GB))
    assert devices.available_bytes() == 13 * GB


@pytest.mark.parametrize("files", [first("", 2**63 - 4096, 15 * GB), second("", "max", 15 * GB), {}])
def test_without_a_limit_the_machine_counts(system, files):
    system(files)
    assert devices.available_bytes() == 50_000_000 * 1024


def test_a_group_that_leaves_more_than_the_machine_has_does_not_count(system):
    system(second("", 200 * GB, 0))
    assert devices.available_bytes() == 50_000_000 * 1024


def test_a_group_without_counts_of_its_files_is_as_full_as_it_says(system):
    system(second("", 16 * GB, 15 * GB, {}))
    assert devices.available_bytes() == GB
    system(second("", 16 * GB, 17 * GB, {}))
    assert devices.available_bytes() == 0


@pytest.mark.parametrize(
    ("version", "line"), [(second, "0::/user.slice/run.scope"), (first, "4:cpu,memory:/user.slice/run.scope")]
)
@pytest.mark.parametrize("limited", ["user.slice/", "user.slice/run.scope/"])
def test_limits_of_the_groups_around_a_process_count(system, version, line, limited):
    system({"proc/self/cgroup": f"1:name=systemd:/\n{line}"} | version(limited, 8 * GB, 7 * GB, {}))
    assert devices.available_bytes() == GB


@pytest.mark.parametrize("path", ["/docker/0123", "/../other"])
def test_a_path_that_the_container_does_not_show_leaves_its_own_limit(system, path):
    system({"proc/self/cgroup": f"0::{path}\n4:memory:{path}"} | second("", 8 * GB, 7 * GB, {}))
    assert devices.available_bytes() == GB


def test_whoever_reads_first_has_its_part_and_the_others_share_what_it_left(system, monkeypatch):
    """A set that fits for the first fits for the others after it, by half of what each is told."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    system(second("", 16 * GB, 0, {}))
    monkeypatch.setenv("LOCAL_RANK", "0")
    taken = devices.available_bytes() // 2
    assert taken == 4 * GB
    system(second("", 16 * GB, taken, {}))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.available_bytes() // 2 >= taken
