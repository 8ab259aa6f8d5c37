"""A user's own data and datasets for a rehearsal, checked before anything that takes long."""

import json
import shutil
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import NamedTuple

from hpa_kit.data import DataFolder, Images, read_labels
from hpa_kit.errors import InputError
from hpa_kit.kaggle.mounts import find_cell_weights, find_ensemble, find_members
from hpa_kit.kaggle.publish.dataset import METADATA, check_dataset
from hpa_kit.submission import read_submission, write_submission

# Half is learnt from, half is what choices are tuned on, which takes four; one test field is damaged.
MIN_LABELLED, MIN_TESTED = 8, 2


class Own(NamedTuple):
    """What of a user's is rehearsed with; None where the rehearsal makes its own.

    Attributes:
        members: dataset of members, as ``hpa-kit kaggle weights`` packs them.
        cells: dataset of the published cell networks, likewise.
        data: competition folder.
        hpacellseg: wheel or checkout of HPA-Cell-Segmentation.
    """

    members: Path | None = None
    cells: Path | None = None
    data: Path | None = None
    hpacellseg: Path | None = None

    def refuse_inside(self, *folders: Path) -> None:
        """Refuse what lies in folders that the rehearsal empties.

        Raises:
            InputError: some of it does.
        """
        for path, folder in product(filter(None, self), folders):
            if path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"rehearse: {path} lies in {folder}, which is emptied; give another --out")

    def mounts(self) -> dict[str, Path]:
        """Tell where Kaggle mounts the datasets: {path among the inputs: folder}.

        Raises:
            InputError: a folder is no dataset that Kaggle takes, or does not hold what it should.
        """
        if self.members is not None and find_ensemble(None, [self.members]) is None:
            find_members(None, [self.members])
        if self.cells is not None and find_cell_weights(None, [self.cells]) is None:
            raise InputError(
                f"rehearse: {self.cells} does not hold both published cell networks; pack them with "
                "`hpa-kit kaggle weights FOLDER OUT`"
            )
        given = [path for path in (self.members, self.cells) if path is not None]
        mounts = {f"datasets/{_id(path)}": path for path in given}
        if len(mounts) < len(given):
            raise InputError(
                f"rehearse: {given[0]} and {given[1]} have one id; change it in one's {METADATA}"
            )
        return mounts


def own_competition(data: Path, out: Path, train: int, test: int) -> tuple[Path, Path]:
    """Take some fields of a user's competition: a public test set with training fields, and a hidden one.

    Public are the first test fields, hidden the last, two more: other rows wherever there are enough. Images
    are links to where they lie; the user's folder is only read.

    Args:
        data: the competition folder.
        out: folder for both; what is in it goes.
        train: most training fields, taken evenly over the table; 0 where none is needed.
        test: most public test fields.

    Returns:
        Folders of the public and the hidden competition.

    Raises:
        InputError: a table or folder is missing, or there are too few fields.
    """
    folder = DataFolder(data)
    if folder.sample() is None:
        raise InputError(
            f"rehearse: {data / 'sample_submission.csv'} is missing; expected a folder as the competition's"
        )
    ids = folder.fields("test").ids
    if len(ids) < MIN_TESTED:
        raise InputError(
            f"rehearse: {folder.sample()} has {len(ids)} rows; expected {MIN_TESTED} or more, as one field "
            "is damaged"
        )
    shutil.rmtree(out, ignore_errors=True)  # links, and tables of them
    if train:
        _write_train(folder, out / "public", train)
    _write_test(folder, out / "public", ids[:test])
    _write_test(folder, out / "hidden", ids[-(test + 2) :])
    return out / "public", out / "hidden"


def _id(folder: Path) -> str:
    """The owner and slug of a dataset's folder."""
    faults = check_dataset(folder)
    if faults:
        raise InputError(f"rehearse: {faults[0]}; pack it with `hpa-kit kaggle weights`")
    return str(json.loads((folder / METADATA).read_text(encoding="utf-8"))["id"])


def _write_train(folder: DataFolder, out: Path, most: int) -> None:
    """Some labelled fields that have images."""
    labels = read_labels(folder.labels())
    there = set(folder.fields("train").ids)
    labels = labels[labels["ID"].isin(there)]
    if len(labels) < MIN_LABELLED:
        raise InputError(
            f"rehearse: {folder.labels()} labels {len(labels)} fields of {folder.images('train')}; expected "
            f"{MIN_LABELLED} or more, or --members-dataset, with which nothing is trained"
        )
    chosen = labels.iloc[[k * len(labels) // most for k in range(most)]] if len(labels) > most else labels
    _link(folder.images("train"), chosen["ID"].tolist(), out / "train")
    chosen.to_csv(out / "train.csv", index=False)


def _write_test(folder: DataFolder, out: Path, ids: list[str]) -> None:
    """Some test fields, with their rows of the sample and of the truth, where there is one."""
    _link(folder.images("test"), ids, out / "test")
    for path in filter(None, (folder.sample(), folder.truth("test"))):
        table = read_submission(path)
        write_submission(out / path.name, table[table["ID"].isin(set(ids))])


def _link(images: Images, ids: Collection[str], out: Path) -> None:
    """Links to all files of some fields."""
    if not isinstance(images, Path):
        raise InputError(
            f"rehearse: {images} holds a lab's images; expected the competition's, ID_red.png and so on"
        )
    out.mkdir(parents=True)
    wanted = set(ids)
    for path in images.iterdir():
        if path.name.rpartition("_")[0] in wanted:
            (out / path.name).symlink_to(path.resolve())
