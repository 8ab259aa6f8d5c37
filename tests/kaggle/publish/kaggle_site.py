"""A Kaggle that lives in a test: datasets, notebooks that run, submissions, files of the competition."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Run(NamedTuple):
    """How a session of a notebook goes."""

    status: str = "COMPLETE"
    log: str = ""
    files: Mapping[str, bytes] = MappingProxyType({})
    failure: str = ""


class Site:
    """What Kaggle keeps, and does.

    Args:
        run: how a pushed notebook goes, given its slug, version, parameters cell and the notebooks it sees.

    Attributes:
        datasets: {owner/slug: [files of each version]}.
        notebooks: {owner/slug: [what each version is]}.
        states: what a dataset is, each time it is asked for after an upload, before it is ready.
    """

    def __init__(self, run: Callable[[str, int, str, list[str]], Run]) -> None:
        self.run = run
        self.datasets: dict[str, list[dict[str, bytes]]] = {}
        self.notebooks: dict[str, list[dict[str, Any]]] = {}
        self.submissions: list[dict[str, Any]] = []
        self.states: dict[str, list[str]] = {}
        self.uploading = ("blobs_received",)
        self.gpu_hours = 30.0
        self.scored: dict[str, str] = {"publicScore": "0.5", "privateScore": "0.4"}
        self.competition: dict[str, bytes] = {}

    def upload(self, folder: Path, new: bool) -> str | None:
        """Take a dataset's folder; why it is refused, or None."""
        id = json.loads((folder / "dataset-metadata.json").read_text())["id"]
        if new == (id in self.datasets):
            slug = id.partition("/")[2]
            return (
                f'The requested slug "{slug}" is already in use by a dataset. Please choose another slug.'
                if new
                else "Dataset not found"
            )
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.take_dataset(id, files)
        return None

    def take_dataset(self, id: str, files: dict[str, bytes]) -> None:
        self.datasets.setdefault(id, []).append(files)
        self.states[id] = list(self.uploading)

    def dataset_state(self, id: str) -> str | None:
        if id not in self.datasets:
            return None
        return self.states[id].pop(0) if self.states[id] else "ready"

    def push(self, metadata: dict[str, Any], text: str) -> dict[str, Any]:
        """Take a notebook and run it; sources that are not there are left out."""
        dropped = {
            "dataset": [one for one in metadata["dataset_sources"] if one not in self.datasets],
            "kernel": [one for one in metadata["kernel_sources"] if one not in self.notebooks],
        }
        found = [one for one in metadata["kernel_sources"] if one in self.notebooks]
        versions = self.notebooks.setdefault(metadata["id"], [])
        cells = json.loads(text)["cells"]
        (parameters,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
        number = len(versions) + 1
        run = self.run(metadata["id"].partition("/")[2], number, parameters, found)
        version = {"number": number, "text": text, "metadata": metadata, "run": run, "parameters": parameters}
        version |= {"before": ["QUEUED", "RUNNING"], "dropped": dropped}
        versions.append(version)
        return version

    def version(self, name: str) -> dict[str, Any] | None:
        """A version by owner/slug or owner/slug/number."""
        owner, slug, *number = name.split("/")
        versions = self.notebooks.get(f"{owner}/{slug}", [])
        place = int(number[0]) - 1 if number else len(versions) - 1
        return versions[place] if 0 <= place < len(versions) else None

    def status(self, name: str) -> tuple[str, str] | None:
        version = self.version(name)
        if version is None:
            return None
        if version["before"]:
            return version["before"].pop(0), ""
        return version["run"].status, version["run"].failure

    def submit(self, id: str, version: int, text: str) -> dict[str, Any]:
        row = {"ref": 100 + len(self.submissions), "fileName": "submission.csv", "date": "2026-12-01",
               "description": text, "asked": 0, "notebook": f"{id}/{version}"}  # fmt: skip
        self.submissions.insert(0, row)
        return row

    def listed_submissions(self) -> list[dict[str, Any]]:
        rows = []
        for row in self.submissions:
            row["asked"] += 1
            done = row["asked"] > 1
            status = ("ERROR" if "error" in self.scored else "COMPLETE") if done else "PENDING"
            scores = {
                key: self.scored.get(key, "") if done else "" for key in ("publicScore", "privateScore")
            }
            rows.append({**{key: row[key] for key in ("ref", "fileName", "date", "description")},
                         "status": status, **scores})  # fmt: skip
        return rows
