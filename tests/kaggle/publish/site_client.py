"""The client's words about a Kaggle that lives in a test, without a process."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kaggle_site import Site

from hpa_kit.kaggle.publish.answers import Answer
from hpa_kit.kaggle.publish.online_client import Client, Pace, shown_command

NO_WAIT = Pace(lines=0, looks=1, network=0, busy=0, tries=3, settle=2, sleep=lambda _: None)
Said = tuple[int, str, str]  # exit status, stdout, stderr
NETWORK_GONE: Said = (
    1,
    "",
    "ConnectionError: HTTPSConnectionPool(host='api.kaggle.com', port=443): Max retries exceeded "
    "(Caused by NameResolutionError(\"Failed to resolve 'api.kaggle.com'\"))\n",
)
NOT_FOUND: Said = (
    1,
    "",
    "404 Client Error: Not Found for url: https://api.kaggle.com/v1/x\n\nThe resource was not found. Check "
    "the spelling of the reference you passed.\n",
)
PROGRESS = "Please check progress at https://www.kaggle.com/x\n"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a kill, at some command."""


class SiteClient(Client):
    """The client without its process: what it would print of a :class:`Site`.

    Attributes:
        asked: every command, as one would give it.
        instead: {beginning of a command: what it says, once each, in place of what the site would}.
        interrupt: (number of the command, whether the site still does it).
        said: what the user was told.
    """

    def __init__(self, site: Site, folder: Path, pace: Pace = NO_WAIT) -> None:
        super().__init__(Path("python"), folder, pace)
        self.site = site
        self.asked: list[str] = []
        self.instead: dict[str, list[Said]] = {}
        self.interrupt: tuple[int, bool] | None = None
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def once(self, *words: str, shown: bool = False) -> Answer:
        command = shown_command(words)
        self.asked.append(command)
        at, done = self.interrupt or (0, False)
        if at == len(self.asked) and not done:
            raise Interrupted
        said = next((self.instead[key] for key in self.instead if command.startswith(f"kaggle {key}")), [])
        answer = Answer(command, *(said.pop(0) if said else self._answer(words)))
        if at == len(self.asked):
            raise Interrupted
        return answer

    def begin(self, path: Path, *words: str) -> Any:
        """The log, at once as far as it is."""
        self.asked.append(shown_command(words))
        if self.interrupt is not None and self.interrupt[0] == len(self.asked):
            raise Interrupted
        version = self.site.version(words[2])
        assert version is not None
        path.write_text(version["run"].log, encoding="utf-8")
        return _Ended()

    def _answer(self, words: Sequence[str]) -> Said:
        option = {key: words[place + 1] for place, key in enumerate(words[:-1]) if key.startswith("-")}
        verbs: dict[str, Callable[[str, Path, dict[str, str]], Said]] = {
            "datasets create": lambda *_: self._upload(option, new=True),
            "datasets version": lambda *_: self._upload(option, new=False),
            "datasets status": self._dataset,
            "kernels push": self._push,
            "kernels pull": self._pull,
            "kernels status": self._status,
            "kernels output": self._output,
            "competitions submit": self._submit,
            "competitions submissions": self._submissions,
            "competitions submission": self._submission,
            "competitions files": self._files,
            "competitions download": self._download,
            "quota --format": self._quota,
        }
        return verbs[" ".join(words[:2])](words[2], self.folder / option.get("-p", "."), option)

    def _upload(self, option: dict[str, str], new: bool) -> Said:
        error = self.site.upload(self.folder / option["-p"], new)
        what = "Dataset" if new else "Dataset version"
        done = ("Your private Dataset" if new else what) + f" is being created. {PROGRESS}"
        return 0, done if error is None else f"{what} creation error: {error}\n", "100%|####|\n"

    def _dataset(self, id: str, _: Path, option: dict[str, str]) -> Said:
        if id not in self.site.datasets:
            return NOT_FOUND
        if "--format" in option:
            return 0, json.dumps({"current_version_number": len(self.site.datasets[id])}), ""
        return 0, self.site.dataset_state(id) or "", ""

    def _push(self, _: str, folder: Path, __: dict[str, str]) -> Said:
        metadata = json.loads((folder / "kernel-metadata.json").read_text())
        version = self.site.push(metadata, (folder / metadata["code_file"]).read_text())
        lines = [
            f"The following are not valid {kind} sources and could not be added to the kernel: {names}"
            for kind, names in version["dropped"].items()
            if names
        ]
        lines.append(f"Kernel version {version['number']} successfully pushed.  {PROGRESS}")
        return 0, "\n".join(lines), ""

    def _pull(self, name: str, folder: Path, _: dict[str, str]) -> Said:
        version = self.site.version(name)
        if version is None:
            return NOT_FOUND
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name.split('/')[1]}.ipynb").write_text(version["text"])
        return 0, f"Source code downloaded to {folder}\n", ""

    def _status(self, name: str, _: Path, __: dict[str, str]) -> Said:
        found = self.site.status(name)
        if found is None:
            return NOT_FOUND
        failure = f'Failure message: "{found[1]}"\n' if found[1] else ""
        return 0, f'{name} has status "KernelWorkerStatus.{found[0]}"\n{failure}', ""

    def _output(self, name: str, folder: Path, option: dict[str, str]) -> Said:
        version = self.site.version(name)
        if version is None:
            return NOT_FOUND
        printed = ""
        for path, content in version["run"].files.items():
            if re.search(option["--file-pattern"], path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
                printed += f"Output file downloaded to {folder / path}\n"
        return 0, printed, ""

    def _submit(self, _: str, __: Path, option: dict[str, str]) -> Said:
        row = self.site.submit(option["-k"], int(option["-v"]), option["-m"])
        return 0, f"Submission ref: {row['ref']}\n4 submissions remaining today.\nSuccessfully submitted", ""

    def _submissions(self, *_: Any) -> Said:
        rows = self.site.listed_submissions()
        return 0, json.dumps(rows, indent=2) + "\n" if rows else "No submissions found\n", ""

    def _submission(self, ref: str, *_: Any) -> Said:
        error = self.site.scored["error"]
        return 0, f"Submission Ref:  {ref}\nStatus:          ERROR\nError:           {error}\n", ""

    def _files(self, _: str, __: Path, option: dict[str, str]) -> Said:
        names, begin = list(self.site.competition), int(option.get("--page-token", "0"))
        end = begin + int(option["--page-size"])
        rows = [
            {"name": name, "size": len(self.site.competition[name]), "creationDate": "2021-01-26 00:00:00"}
            for name in names[begin:end]
        ]
        token = f"Next Page Token = {end}\n" if end < len(names) else ""
        return 0, token + json.dumps(rows, indent=2) + "\n", ""

    def _download(self, _: str, folder: Path, option: dict[str, str]) -> Said:
        name = option["-f"]
        if name not in self.site.competition:
            return NOT_FOUND
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(self.site.competition[name])
        return 0, "", ""

    def _quota(self, *_: Any) -> Said:
        hours = self.site.gpu_hours
        row = {"resource": "GPU", "used": f"{30 - hours:.2f}h", "remaining": f"{hours:.2f}h",
               "total": "30.00h", "refreshAt": "2026-12-05T00:00:00+00:00"}  # fmt: skip
        return 0, json.dumps([row], indent=2) + "\n", ""


class _Ended:
    """A command that ran and is over."""

    def poll(self) -> int:
        return 0

    def wait(self, timeout: float | None = None) -> int:
        return 0

    def terminate(self) -> None:
        pass
