"""What lies where in a data folder, the competition's, a simulated one or just images; and its tables."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from hpa_kit.classes import format_label, parse_label
from hpa_kit.data.fields import Images, find_fields, holds_fields
from hpa_kit.errors import InputError
from hpa_kit.tables import check_ids, read_table

if TYPE_CHECKING:
    from hpa_kit.config.kinds import ImageSettings

SPLITS = ("train", "test")


class SplitFields(NamedTuple):
    """The fields of a split, and how its table and its images differ."""

    ids: list[str]  # the rows to work on
    missing: list[str]  # in the table, no image on disk
    extra: list[str]  # on disk, not in the table


class DataFolder:
    """A folder with ``train/`` and ``test/`` and their tables, or a plain folder of images.

    A plain folder, one with neither ``train/`` nor ``test/``, is its own split whatever split is asked for.
    Where a split's folder holds no ``ID_red.png`` and so on it is looked through for a lab's images, see
    :class:`~hpa_kit.data.lab_folder.LabFolder`.

    Args:
        root: the folder.
        reading: how images of other layouts than the competition's are read, and the scale of all.

    Raises:
        InputError: it is missing, or is a file.
    """

    def __init__(self, root: str | Path, reading: "ImageSettings | None" = None) -> None:
        self.root, self._reading = Path(root), reading
        self._images: dict[Path, Images] = {}
        if not self.root.is_dir():
            found = "is a file" if self.root.exists() else "is missing"
            raise InputError(
                f"data: {self.root} {found}; expected a folder with train/ and test/, or with images"
            )

    def images(self, split: str) -> "Images":
        """Find the folder of a split's images.

        Raises:
            InputError: the split is unknown, or has no folder; or ``channels`` are given for files whose
                names say them.
        """
        folder = self._folder(split)
        if folder not in self._images:
            self._images[folder] = self._images_in(folder)
        return self._images[folder]

    def _images_in(self, folder: Path) -> "Images":
        """The folder itself, where the competition's layout lies in it and is taken as it is."""
        reading = self._reading
        if holds_fields(folder):
            if reading is not None and reading.channels is not None:
                raise InputError(
                    f"data: {folder} holds ID_red.png and so on, whose names say their "
                    "channels; leave channels out"
                )
            if reading is None or not reading.pixel_size:
                return folder
        from hpa_kit.data.lab_folder import LabFolder

        how = () if reading is None else (reading.channels, reading.pixel_size, reading.stack)
        found = LabFolder(folder, *how)
        return found if found.ids else folder

    def _folder(self, split: str) -> Path:
        _check_split(split)
        folder = self.root / split
        if folder.is_dir():
            return folder
        others = [name for name in SPLITS if (self.root / name).is_dir()]
        if others:
            raise InputError(f"data: {folder} is missing; {self.root} has {others[0]}/ only")
        return self.root

    def labels(self) -> Path:
        """Find the table of image labels, ``train.csv``.

        Raises:
            InputError: it is missing.
        """
        path = self.root / "train.csv"
        if not path.is_file():
            raise InputError(f"data: {path} is missing; expected the table of image labels (ID, Label)")
        return path

    def sample(self) -> Path | None:
        """Find the sample submission, ``sample_submission.csv``, or None where there is none."""
        return _if_there(self.root / "sample_submission.csv")

    def truth(self, split: str) -> Path | None:
        """Find the truth of every cell that simulated data has, or None where there is none.

        Raises:
            InputError: the split is unknown.
        """
        _check_split(split)
        return _if_there(self.root / ("truth.csv" if split == "test" else "truth_train.csv"))

    def fields(self, split: str) -> SplitFields:
        """List the IDs to work on, and what differs between the split's table and its images.

        The rows of a submission are the sample's: Kaggle puts another sample and other images in place when
        it scores, so ``ids`` of a test split with a sample are the sample's, in its order, images or not.
        Without one, and in training, they are the fields found, sorted.

        Raises:
            InputError: the split is unknown, has no folder or no field, or its table cannot be read.
        """
        folder = self.images(split)
        found, listed = find_fields(folder), self._listed(split)
        ids = listed if listed is not None and split == "test" else found
        if not ids:
            raise InputError(
                f"data: {folder} holds no field to work on; expected ID_red.png and so on, or tif, OME-TIFF "
                "or OME-Zarr of all channels"
            )
        if listed is None:
            return SplitFields(ids, [], [])
        on_disk, in_table = set(found), set(listed)
        missing = [id for id in listed if id not in on_disk]
        extra = [id for id in found if id not in in_table]
        return SplitFields(ids, missing, extra)

    def _listed(self, split: str) -> list[str] | None:
        """The IDs in a split's table, in its order, or None where it has no table."""
        if split == "test":
            sample = self.sample()
            return None if sample is None else read_sample(sample)["ID"].tolist()
        labels = _if_there(self.root / "train.csv")
        return None if labels is None else read_labels(labels)["ID"].tolist()


def read_labels(path: str | Path) -> pd.DataFrame:
    """Read image labels, one row per field, in the file's order.

    Returns:
        Columns ``ID`` (text) and ``Label`` (text; classes rising, each once, such as ``0|5|8``). Other
        columns of the file are left out.

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, holds an ID twice, or a label
            cannot be read; the ID is named.
    """
    table = read_table(path, ("ID", "Label"))
    check_ids(table["ID"], path)
    labels = [
        format_label(parse_label(label, f"labels: {path}, ID {id}"))
        for id, label in zip(table["ID"], table["Label"], strict=True)
    ]
    return pd.DataFrame({"ID": table["ID"], "Label": pd.Series(labels, dtype=object)})


def read_sample(path: str | Path) -> pd.DataFrame:
    """Read a sample submission: which rows a submission has, in the file's order.

    Returns:
        Columns ``ID`` (text), ``ImageWidth`` and ``ImageHeight`` (int64), ``PredictionString`` (text, may be
        empty).

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, holds an ID twice, or a size is no
            positive whole number; the ID is named.
    """
    # Here, because submissions come with numba, which takes a second to import.
    from hpa_kit.submission import read_submission

    return read_submission(path, "sample")


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"data: unknown split {split!r}; expected train or test")


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None
