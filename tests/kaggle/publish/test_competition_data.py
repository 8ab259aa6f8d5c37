"""The competition's tables, and as many images as are wanted, come to a folder whole and once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kaggle_site import Site
from site_client import NETWORK_GONE, Interrupted, SiteClient

from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish import data
from hpa_kit.kaggle.publish.data import DataPlan, data_commands, fetch_data
from hpa_kit.kaggle.publish.dataset import Fault

IDS = {"train": ("a", "b", "c"), "test": ("x", "y")}
IMAGES = {
    f"{split}/{id}_{colour}.png": f"{id} {colour}".encode()
    for split, ids in IDS.items()
    for id in ids
    for colour in data.COLOURS
}
TABLES = {
    "sample_submission.csv": b"ID,ImageWidth\nx,1\ny,1\n",
    "train.csv": b"ID,Label\na,0\nb,1\nc,2\n",
}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """A competition of which Kaggle lists seven files at once; the other kind of images lies between."""
    monkeypatch.setattr(data, "PAGE", 7)
    found = Site(lambda *_: pytest.fail("nothing is run"))
    others = {f"train_tfrecords/{number}.tfrec": b"t" for number in range(20)}
    found.competition = {**TABLES, **IMAGES, **others}
    return found


@pytest.fixture
def call(site: Site, tmp_path: Path) -> Callable[..., SiteClient]:
    """Gives the command once."""

    def call(*images: str, prepare: Callable[[SiteClient], None] = lambda client: None) -> SiteClient:
        client = SiteClient(site, tmp_path)
        prepare(client)
        fetch_data(DataPlan(tmp_path / "data", images), client)
        return client

    return call


def there(folder: Path) -> dict[str, bytes]:
    """What lies there in its place."""
    root = folder / "data"
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(data.ARRIVING)}


def test_tables_come_by_themselves(call, tmp_path):
    client = call()
    assert there(tmp_path) == TABLES
    assert len(client.asked) == 2
    assert call().asked == []


def test_the_images_of_a_split_are_those_of_its_table_and_their_bytes_are_told_first(call, tmp_path):
    client = call("test")
    images = {name: content for name, content in IMAGES.items() if name.startswith("test/")}
    assert there(tmp_path) == {**TABLES, **images}
    size = sum(map(len, images.values()))
    told = client.said.index(f"8 images, {size} bytes: 0 are there, 8 to fetch, {size} bytes")
    assert told == len(client.said) - 2  # before the last line, which says that all is there
    assert sum("competitions files" in command for command in client.asked) == 4  # not all pages


def test_the_first_fields_are_those_that_kaggle_lists_first(call, tmp_path):
    client = call("2")
    wanted = {name for name in IMAGES if name.startswith(("train/a", "train/b"))}
    assert there(tmp_path).keys() == {*TABLES, *wanted}
    assert sum("competitions files" in command for command in client.asked) == 2
    asked = call("2").asked
    assert asked == []
    call("3", "test")
    assert there(tmp_path) == {**TABLES, **IMAGES}


def test_more_fields_than_there_are_is_all_of_them(call, tmp_path):
    assert "there are 3 training fields only" in call("9").said
    assert len(there(tmp_path)) == 2 + 12


def test_interrupted_at_any_command_before_or_after_it_nothing_whole_is_fetched_twice(
    call, site, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "AT_A_TIME", 1)
    number = len(call("test").asked)
    for at in range(1, number + 1):
        for done in (False, True):
            for path in sorted((tmp_path / "data").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            clients: list[SiteClient] = []

            def prepare(client: SiteClient, at=at, done=done, clients=clients) -> None:
                client.interrupt = (at, done)
                clients.append(client)

            with pytest.raises(Interrupted):
                call("test", prepare=prepare)
            before = set(there(tmp_path))
            again = call("test").asked
            assert [name for name in before if any(f"-f {name} " in one for one in again)] == []
            assert len(there(tmp_path)) == 2 + 8


def test_a_network_that_goes_is_waited_for_and_a_file_that_is_cut_is_not_taken(call, site, tmp_path):
    gone = {"competitions download": [NETWORK_GONE], "competitions files": [NETWORK_GONE]}
    call("1", prepare=lambda client: client.instead.update(gone))
    assert len(there(tmp_path)) == 2 + 4

    def cut(client: SiteClient) -> None:
        site.competition = {**site.competition, "train/b_red.png": b"cut"}
        rows = client._files

        def files(*words):
            status, printed, errors = rows(*words)
            return status, printed.replace('"size": 3,', '"size": 5,'), errors

        client._files = files  # type: ignore[method-assign]

    with pytest.raises(Fault, match=r"train/b_red.png has 3 bytes; Kaggle lists 5"):
        call("2", prepare=cut)
    assert "train/b_red.png" not in there(tmp_path)


def test_rules_that_are_not_accepted_are_named_with_their_page(call):
    refused = (1, "", "403 Client Error: Forbidden for url: x\n\nYou don't have access to this resource.\n")
    with pytest.raises(Fault, match="rules are not accepted") as told:
        call(prepare=lambda client: client.instead.update({"competitions download": [refused]}))
    assert told.value.fix.endswith("/rules")


def test_what_is_asked_for_wrongly_is_said_before_anything_is_fetched(call, tmp_path):
    for images in (("valid",), ("0",), ("-1",), ("train", "x")):
        with pytest.raises(InputError, match="expected train, test or how many fields"):
            call(*images)
    assert not (tmp_path / "data").exists()


def test_images_that_kaggle_does_not_list_are_named(call, site):
    del site.competition["test/y_blue.png"]
    with pytest.raises(Fault, match="test/y_blue.png and 0 others are not among the"):
        call("test")


def test_a_disk_without_room_is_said_before_the_first_image(call, monkeypatch):
    monkeypatch.setattr(data.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(InputError, match="has no room for .* bytes; ask for fewer images"):
        call("1")


def test_a_dry_run_prints_commands_of_the_kinds_that_a_run_gives(call, tmp_path):
    printed = list(data_commands(DataPlan(tmp_path / "data", ("1",))))
    assert not (tmp_path / "data").exists()
    asked = [command.replace("a_red", "ID_COLOUR") for command in call("1").asked]
    assert [command for command in printed if command not in asked] == []
    assert len(printed) == 4
