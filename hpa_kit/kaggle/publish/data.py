"""``hpa-kit kaggle data``: the competition's tables for work at home, and as many images as are wanted.

Each file comes into a hidden folder first and is then moved to its place, so that what is in its place is
whole: the same command fetches what is missing, and the rest of what was begun. Standard library only.
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text, make_folder
from hpa_kit.flow import run_ahead
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.answers import AGAIN, listed_files, refusal
from hpa_kit.kaggle.publish.dataset import Fault
from hpa_kit.kaggle.publish.online_client import Client, shown_command
from hpa_kit.locks import locked
from hpa_kit.progress import Lines

TABLES = ("train.csv", "sample_submission.csv")
SPLITS = {"train": "train.csv", "test": "sample_submission.csv"}  # whose IDs its table has
COLOURS = ("red", "green", "blue", "yellow")
ARRIVING = ".arriving"
LISTED = "files.json"
AT_A_TIME = 4  # clients
PAGE = 200  # files that Kaggle lists at once, at most
PAGES_KEPT = 20  # listed since they were last written


class DataPlan(NamedTuple):
    """What is to be fetched."""

    folder: Path
    images: tuple[str, ...] = ()  # splits, and how many of the first training fields

    def wanted(self) -> tuple[list[str], int]:
        """Tell the splits, and how many of the first training fields.

        Raises:
            InputError: something else is asked for.
        """
        splits = [one for one in self.images if one in SPLITS]
        numbers = [one for one in self.images if one.isdecimal() and int(one) > 0]
        for one in self.images:
            if one not in splits and one not in numbers:
                raise InputError(f"kaggle data: images are {one!r}; expected train, test or how many fields")
        return splits, max(map(int, numbers), default=0)


def fetch_data(plan: DataPlan, client: Client) -> None:
    """Fetch the tables, then the images that are wanted and not there yet.

    Args:
        plan: what, and where to.
        client: asks and fetches.

    Raises:
        Fault: Kaggle refuses a file, or lists none of that name.
        InputError: something else is asked for, or the disk has no room.
    """
    splits, first = plan.wanted()
    make_folder(plan.folder)
    with locked(plan.folder / ".lock"):
        for name in TABLES:
            if not (plan.folder / name).is_file():
                _fetch(client, plan.folder, name, 0)
                client.say(f"{plan.folder / name}: {_size((plan.folder / name).stat().st_size)}")
        if splits or first:
            _fetch_images(client, plan.folder, _images(client, plan.folder, splits, first))
        with suppress(OSError):  # what Kaggle lists stays, for the next call
            (plan.folder / ARRIVING).rmdir()
    client.say(f"{plan.folder}: all there")


def _images(client: Client, folder: Path, splits: list[str], first: int) -> dict[str, int]:
    """The images that are wanted, with their bytes."""
    wanted = {name for split in splits for name in _names(folder, split)}
    files = _listed(
        client, folder, lambda files: wanted <= files.keys() and len(_first_fields(files, first)) == first
    )
    if missing := sorted(wanted - files.keys()):
        raise Fault(
            f"kaggle data: {missing[0]} and {len(missing) - 1} others are not among the {len(files)} files "
            "that Kaggle lists",
            f"rm -r {folder / ARRIVING}; the same command lists them anew",
        )
    fields = _first_fields(files, first)
    if len(fields) < first:
        client.say(f"there are {len(fields)} training fields only")
    wanted |= {f"train/{field}_{colour}.png" for field in fields for colour in COLOURS}
    return {name: files[name] for name in files if name in wanted}


def _names(folder: Path, split: str) -> Iterator[str]:
    """Names of all images of a split, after its table."""
    with (folder / SPLITS[split]).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for colour in COLOURS:
                yield f"{split}/{row['ID']}_{colour}.png"


def _first_fields(files: dict[str, int], most: int) -> list[str]:
    """The first training fields that are listed with all channels."""
    if not most:
        return []
    ids = (name[len("train/") :].rpartition("_")[0] for name in files if name.startswith("train/"))
    known = dict.fromkeys(id for id, _ in groupby(ids))
    whole = [id for id in known if all(f"train/{id}_{colour}.png" in files for colour in COLOURS)]
    return whole[:most]


def _listed(client: Client, folder: Path, enough: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Names and bytes of the competition's files, as Kaggle lists them, until there are enough."""
    path = folder / ARRIVING / LISTED
    files: dict[str, int] = {}
    token = ""
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        files, token = kept["files"], kept["next"]
        if token is None or enough(files):
            return files
    bar = Lines("files that Kaggle lists", None, "file", initial=len(files))
    for page in range(1, 1_000_000):
        answer = client.ask(*list_words(token))
        found = listed_files(answer)
        if found is None and token and path.is_file():  # which may be too old
            path.unlink()
            return _listed(client, folder, enough)
        if found is None:
            raise refusal(answer)
        rows, token = found
        files |= rows
        bar.update(len(rows))
        ended = not token or enough(files)
        if ended or page % PAGES_KEPT == 0:
            atomic_text(path, json.dumps({"files": files, "next": token or None}))
        if ended:
            break
    return files


def _fetch_images(client: Client, folder: Path, files: dict[str, int]) -> None:
    """Fetch those that are not there, some at a time."""
    left = {name: size for name, size in files.items() if not (folder / name).is_file()}
    whole, rest = sum(files.values()), sum(left.values())
    client.say(
        f"{len(files)} images, {_size(whole)}: {len(files) - len(left)} are there, "
        f"{len(left)} to fetch, {_size(rest)}"
    )
    if rest > shutil.disk_usage(folder).free:
        raise InputError(f"kaggle data: {folder} has no room for {_size(rest)}; ask for fewer images")
    with ThreadPoolExecutor(AT_A_TIME) as pool, Lines("images", len(left), "image") as bar:
        for _ in run_ahead(pool, lambda name: _fetch(client, folder, name, left[name]), left, 2 * AT_A_TIME):
            bar.update()


def _fetch(client: Client, folder: Path, name: str, size: int) -> None:
    """Fetch a file and put it in its place.

    Args:
        client: fetches.
        folder: of the competition here.
        name: the file's path in it.
        size: its bytes; 0 where nobody knows.
    """
    arriving = folder / ARRIVING / name
    answer = client.ask(*download_words(name, folder))
    if answer.status or not arriving.is_file():
        raise refusal(answer)
    if size and arriving.stat().st_size != size:
        raise Fault(
            f"kaggle data: {name} has {arriving.stat().st_size} bytes; Kaggle lists {size}",
            f"rm -r {folder / ARRIVING}; {AGAIN}",
        )
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    arriving.replace(folder / name)


def list_words(token: str = "") -> tuple[str, ...]:
    """Give the words that list a page of the competition's files."""
    words = ("competitions", "files", COMPETITION, "--format", "json", "--page-size", str(PAGE))
    return (*words, "--page-token", token) if token else words


def download_words(name: str, folder: Path) -> tuple[str, ...]:
    """Give the words that fetch a file of the competition; large ones arrive as zips of one file."""
    place = str((folder / ARRIVING).absolute())
    return ("competitions", "download", COMPETITION, "-f", name, "-p", place, "--unzip", "-q")


def data_commands(plan: DataPlan) -> Iterator[str]:
    """List the client's commands that fetch what is wanted, where nothing is there; images once for all."""
    splits, first = plan.wanted()
    for name in TABLES:
        yield shown_command(download_words(name, plan.folder))
    if splits or first:
        yield shown_command(list_words())
    for split in dict.fromkeys([*splits, *(["train"] if first else [])]):
        yield shown_command(download_words(f"{split}/ID_COLOUR.png", plan.folder))


def _size(number: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
