"""The real Kaggle client doing everything but talk: its parsers, its checks, the requests it would send.

A script of its own, run by the Python that has the client: needs ``kaggle`` and the standard library only.
It reads commands from its input, a JSON list of lists of words, and prints what came of each as JSON.
"""

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock


def main() -> None:
    """Run each command of the input against a server that accepts everything and is not there."""
    # Before the import, which looks for an account and, finding none, closes the input.
    commands = json.load(sys.stdin)
    importlib.import_module("kaggle.cli")
    kaggle = sys.modules["kaggle"]
    outcomes = [_outcome(kaggle, words) for words in commands]
    print("\n" + json.dumps(outcomes))


def _outcome(kaggle: Any, words: list[str]) -> dict[str, Any]:
    requests: list[dict[str, Any]] = []
    files: list[str] = []
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        _offline(kaggle.api, requests, files),
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            kaggle.cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return {
        "version": kaggle.__version__,
        "status": status,
        "printed": out.getvalue(),
        "errors": err.getvalue(),
        "files": files,
        "requests": requests,
    }


@contextlib.contextmanager
def _offline(api: Any, requests: list[dict[str, Any]], files: list[str]) -> Any:
    """The client's one object with its transport taken out."""
    missing = importlib.import_module("requests.exceptions").HTTPError("no such dataset")

    def accept(request: Any) -> Any:
        content = request.to_dict()
        content.pop("text", None)  # of a notebook: long, and no matter of the client's
        requests.append({"kind": type(request).__name__, **content})
        return mock.Mock(
            error=None, status="ok", url="nowhere", versionNumber=1, ref=None, message="accepted",
            invalidTags=[], invalidDatasetSources=[], invalidCompetitionSources=[], invalidKernelSources=[],
        )  # fmt: skip

    def upload(path: str, *_: Any) -> str:
        files.append(Path(path).name)
        return files[-1]

    server = mock.MagicMock()
    client = server.__enter__.return_value
    client.kernels.kernels_api_client.save_kernel = accept
    client.datasets.dataset_api_client.create_dataset = accept
    client.datasets.dataset_api_client.create_dataset_version = accept
    client.competitions.competition_api_client.create_code_submission = accept
    parts = {
        "build_kaggle_client": lambda *_, **__: server,
        "dataset_status": mock.Mock(side_effect=missing),
        "_upload_blob": upload,
        "with_retry": lambda function, *_: function,
        "competition_get_submission_limits": mock.Mock(return_value=mock.Mock(num_allowed_now=5)),
        "config_values": {api.CONFIG_NAME_USER: "nobody"},
        "_authenticated": True,
        "already_printed_version_warning": True,
    }
    with contextlib.ExitStack() as stack:
        for name, part in parts.items():
            stack.enter_context(mock.patch.object(api, name, part, create=True))
        yield


if __name__ == "__main__":
    main()
