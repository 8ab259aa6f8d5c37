"""Tables that end behind a link, in a pipe or in a device."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpa_kit.config import InferSettings, PredictSettings
from hpa_kit.errors import InputError
from hpa_kit.inference import infer, predict
from hpa_kit.inference.results import Journal, journal_of


@pytest.fixture
def fields(competition, cells):
    for k in range(3):
        competition.add(f"f{k}", cells(64, 64, 32), seed=k)
    competition.write_sample()
    (competition.root / "out").mkdir()
    return competition


@pytest.fixture
def settings_to(fields, member):
    def settings(name: str | Path, kind=InferSettings):
        out = fields.root / "out" / name
        values = {"masks": fields.masks, "views": "none", "map_size": 64, "device": "cpu"}
        return kind(data=fields.root, members=(member,), out=out, **values)

    return settings


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


COMMANDS = pytest.mark.parametrize(("command", "kind"), [(infer, InferSettings), (predict, PredictSettings)])


@COMMANDS
@pytest.mark.parametrize("there", [True, False])
def test_a_table_goes_where_its_link_leads(settings_to, fields, command, kind, there) -> None:
    expected = command(settings_to("plain.csv", kind)).read_bytes()
    far, link = fields.root / "far.csv", fields.root / "out" / "link.csv"
    if there:
        far.write_text("old")
    link.symlink_to(far)
    assert command(settings_to("link.csv", kind)) == link
    assert link.is_symlink()
    assert far.read_bytes() == expected
    assert not [name for name in names(fields.root) | names(link.parent) if name.startswith(".")]


@COMMANDS
def test_a_pipe_gets_the_table_once_and_nothing_is_left_beside_it(settings_to, fields, command, kind) -> None:
    expected = command(settings_to("plain.csv", kind)).read_bytes()
    folder = fields.root / "out" / "pipes"
    folder.mkdir()
    os.mkfifo(folder / "pipe.csv")
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit((folder / "pipe.csv").read_bytes)
        command(settings_to("pipes/pipe.csv", kind))
        assert read.result(timeout=60) == expected
    assert names(folder) == {"pipe.csv"}


@COMMANDS
def test_a_device_takes_the_table(settings_to, command, kind) -> None:
    before = names(Path(os.devnull).parent)
    command(settings_to(os.devnull, kind))
    assert names(Path(os.devnull).parent) == before
    assert Path(os.devnull).is_char_device()


def test_two_names_of_one_csv_are_not_written_at_once(settings_to, fields) -> None:
    (fields.root / "out" / "link.csv").symlink_to("real.csv")
    with (
        Journal(journal_of(fields.root / "out" / "real.csv")),
        pytest.raises(InputError, match="another process"),
    ):
        infer(settings_to("link.csv"))
