"""The rows of a submission while it grows: kept on disk, written as a valid CSV at any moment."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hpa_kit.files import make_folder_of
from hpa_kit.submission import encode_mask, write_submission

Size = tuple[int, int]

# The CSV is brought up to date this often, or so seldom that writing takes at most a twentieth of the time.
WRITE_SECONDS = 60.0
WRITE_PART = 20
# What a row says whose field has no readable size; the competition's usual one.
USUAL_SIZE = (2048, 2048)
# A class, the lowest confidence that every reader takes, and an empty mask: it finds nothing and harms
# nothing, and unlike an empty text it is never taken for a missing value.
NOTHING = "0 0.000001 {mask}"


class SubmissionRows:
    """Predictions of fields as they come; a context manager.

    Prediction strings go to a temporary file beside the CSV, so memory does not grow with their number.

    Args:
        out: the CSV.
        ids: the rows, in the order they are written.
        sizes: {ID: (height, width)} of the rows whose size is known.

    Raises:
        InputError: no file can be made at ``out``.
    """

    def __init__(self, out: Path, ids: Sequence[str], sizes: Mapping[str, Size]) -> None:
        self.out, self.ids, self.sizes = Path(out), list(ids), dict(sizes)
        self._where: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._nothing: dict[Size, str] = {}
        self._due = 0.0
        make_folder_of(self.out)
        self._kept = tempfile.TemporaryFile(dir=self.out.parent)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()

    def add(self, id: str, size: Size, prediction: str) -> None:
        """Keep a field's prediction; an empty one becomes a row that finds nothing."""
        data = prediction.encode("ascii")
        self._kept.seek(self._end)
        self._kept.write(data)
        self._where[id] = (self._end, len(data))
        self._end += len(data)
        self.sizes[id] = size

    def write(self) -> None:
        """Write all rows; those whose field is not done find nothing."""
        begun = time.monotonic()
        write_submission(self.out, self._rows())
        now = time.monotonic()
        self._due = now + max(WRITE_SECONDS, WRITE_PART * (now - begun))

    def write_if_due(self) -> None:
        """Write all rows where the last time was long enough ago."""
        if time.monotonic() >= self._due:
            self.write()

    def _rows(self) -> Iterator[tuple[str, int, int, str]]:
        usual = Counter(self.sizes.values()).most_common(1)
        default = usual[0][0] if usual else USUAL_SIZE
        for id in self.ids:
            size = self.sizes.get(id, default)
            yield id, size[1], size[0], self._prediction(id) or self._finds_nothing(size)

    def _prediction(self, id: str) -> str:
        start, length = self._where.get(id, (0, 0))
        self._kept.seek(start)
        return self._kept.read(length).decode("ascii")

    def _finds_nothing(self, size: Size) -> str:
        if size not in self._nothing:
            self._nothing[size] = NOTHING.format(mask=encode_mask(np.zeros(size, bool)))
        return self._nothing[size]
