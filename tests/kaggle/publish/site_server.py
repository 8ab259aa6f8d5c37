"""A Kaggle that lives in a test, spoken to by the real client: a server on the loopback address.

The client is told that Kaggle is this machine (``KAGGLE_API_ENVIRONMENT=LOCALHOST``) and that its way out is
a proxy, which is this server: whatever it asks for comes here, and nothing leaves the machine.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from kaggle_site import Site

HOST = "http://localhost"


class Refused(Exception):
    """An HTTP status and what the server says with it."""


class Server(ThreadingHTTPServer):
    """Answers the client's requests from a :class:`Site`.

    Attributes:
        called: each request's service and method, or path.
        instead: {method: answers in place of the site's, once each: a dictionary, or an HTTP status}.
    """

    daemon_threads = True

    def __init__(self, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        self.called: list[str] = []
        self.instead: dict[str, list[dict[str, Any] | int]] = {}
        self.uploads: dict[str, tuple[str, bytes]] = {}

    # Each method of the client's services that the kit's commands use, by its name there.

    def get_dataset_status(self, asked: dict[str, Any]) -> dict[str, Any]:
        state = self.site.dataset_state(f"{asked['ownerSlug']}/{asked['datasetSlug']}")
        return {"status": _there(state).upper()}

    def get_dataset(self, asked: dict[str, Any]) -> dict[str, Any]:
        versions = _there(self.site.datasets.get(f"{asked['ownerSlug']}/{asked['datasetSlug']}"))
        return {"currentVersionNumber": len(versions)}

    def start_blob_upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        token = f"t{len(self.uploads)}"
        self.uploads[token] = (asked["name"], b"")
        return {"token": token, "createUrl": f"{HOST}/upload/{token}"}

    def create_dataset(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._take(f"{asked['ownerSlug']}/{asked['slug']}", asked["files"])

    def create_dataset_version(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._take(f"{asked['ownerSlug']}/{asked['datasetSlug']}", asked["body"]["files"])

    def _take(self, id: str, files: list[dict[str, str]]) -> dict[str, Any]:
        self.site.take_dataset(id, dict(self.uploads[one["token"]] for one in files))
        return {"status": "ok", "url": f"{HOST}/datasets/{id}"}

    def save_kernel(self, asked: dict[str, Any]) -> dict[str, Any]:
        metadata = {
            "id": asked["slug"],
            "title": asked["newTitle"],
            "dataset_sources": asked["datasetDataSources"],
            "kernel_sources": asked.get("kernelDataSources", []),
            "enable_internet": asked.get("enableInternet", False),
        }
        version = self.site.push(metadata, asked["text"])
        dropped = version["dropped"]
        return {
            "url": f"{HOST}/code/{asked['slug']}",
            "versionNumber": version["number"],
            "invalidDatasetSources": dropped["dataset"],
            "invalidKernelSources": dropped["kernel"],
        }

    def get_kernel(self, asked: dict[str, Any]) -> dict[str, Any]:
        version = _there(self.site.version(_name(asked)))
        blob = {"source": version["text"], "language": "python", "kernelType": "notebook"}
        return {"blob": {**blob, "slug": asked["kernelSlug"]}, "metadata": {"ref": version["metadata"]["id"]}}

    def get_kernel_session_status(self, asked: dict[str, Any]) -> dict[str, Any]:
        status, failure = _there(self.site.status(_name(asked)))
        return {"status": status, **({"failureMessage": failure} if failure else {})}

    def list_kernel_session_output(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = _there(self.site.version(_name(asked)))["run"]
        begin = int(asked.get("pageToken") or 0)
        names = list(run.files)[begin : begin + 2]
        files = [
            {"url": f"{HOST}/output/{quote(_name(asked))}?{quote(name)}", "fileName": name} for name in names
        ]
        token = {"nextPageToken": str(begin + 2)} if begin + 2 < len(run.files) else {}
        return {"files": files, "log": json.dumps([{"data": run.log}]), **token}

    def get_accelerator_quota_statistics(self, _: dict[str, Any]) -> dict[str, Any]:
        used = f"{round(3600 * (30 - self.site.gpu_hours))}s"
        return {"quotaRefreshTime": "2026-12-05T00:00:00Z",
                "gpuQuota": {"timeUsed": used, "totalTimeAllowed": f"{30 * 3600}s"}}  # fmt: skip

    def create_code_submission(self, asked: dict[str, Any]) -> dict[str, Any]:
        id = f"{asked['kernelOwner']}/{asked['kernelSlug']}"
        row = self.site.submit(id, asked["kernelVersion"], asked["submissionDescription"])
        return {"message": "Successfully submitted to the competition", "ref": row["ref"]}

    def get_submission_limits(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"numAllowedNow": 4}

    def list_submissions(self, _: dict[str, Any]) -> dict[str, Any]:
        rows = self.site.listed_submissions()
        return {"submissions": [{**row, "date": "2026-12-01T00:00:00Z"} for row in rows]}

    def get_submission(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"ref": asked["ref"], "status": "ERROR", "errorDescription": self.site.scored["error"]}

    def list_data_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        begin, names = int(asked.get("pageToken") or 0), list(self.site.competition)
        end = begin + asked["pageSize"]
        files = [
            {
                "name": name,
                "totalBytes": len(self.site.competition[name]),
                "creationDate": "2021-01-26T00:00:00Z",
            }
            for name in names[begin:end]
        ]
        return {"files": files, **({"nextPageToken": str(end)} if end < len(names) else {})}


def _there(found: Any) -> Any:
    if found is None:
        raise Refused(404, "not found")
    return found


def _name(asked: dict[str, Any]) -> str:
    label = asked.get("versionLabel")
    return f"{asked['userName']}/{asked['kernelSlug']}" + (f"/{label.removeprefix('v')}" if label else "")


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        """A method of a service; `GetKernel` is the server's `get_kernel`."""
        asked = json.loads(self._body())
        name = urlsplit(self.path).path.rpartition("/")[2]
        self.server.called.append(name)
        if name == "DownloadDataFile":
            self._answer(302, b"", {"Location": f"{HOST}/file/{quote(asked['fileName'])}"})
            return
        method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]
        waiting = self.server.instead.get(name, [])
        try:
            instead = waiting.pop(0) if waiting else None
            if isinstance(instead, int):
                raise Refused(instead, "refused")
            found = getattr(self.server, method)(asked) if instead is None else instead
        except Refused as refused:
            status, message = refused.args
            self._json(status, {"code": status, "message": f"{status} Client Error: {message}"})
            return
        self._json(200, found)

    def do_PUT(self) -> None:
        """The content of a file that is uploaded."""
        token = self.path.rpartition("/")[2]
        self.server.uploads[token] = (self.server.uploads[token][0], self._body())
        self._answer(200, b"")

    def do_GET(self) -> None:
        """A log as it comes, a file of a session's output, a file of the competition."""
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        self.server.called.append(parts[0])
        if parts[0] == "api":
            asked = dict(zip(("userName", "kernelSlug"), parts[-2:], strict=True))
            label = parse_qs(address.query).get("versionLabel", [""])[0]
            version = self.server.site.version(_name({**asked, "versionLabel": label}))
            events = (
                [json.dumps({"data": line}) for line in version["run"].log.splitlines()] if version else []
            )
            stream = "".join(f"data: {event}\n\n" for event in [*events, "END_OF_LOG"])
            self._answer(200, stream.encode(), {"Content-Type": "text/event-stream"})
        elif parts[0] == "output":
            version = self.server.site.version("/".join(parts[1:]))
            assert version is not None
            self._answer(200, version["run"].files[unquote(address.query)])
        else:
            self._answer(200, self.server.site.competition["/".join(parts[1:])], {"Accept-Ranges": "bytes"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serve(
    site: Site, home: Path, setenv: Callable[[str, str], None], delenv: Callable[..., None]
) -> Iterator[Server]:
    """Let the client of this process's children see that Kaggle, as a user whom it knows.

    Args:
        site: what is there.
        home: an empty folder, in place of the user's own.
        setenv, delenv: of pytest's monkeypatch.
    """
    server = Server(site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
                 "KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):  # fmt: skip
        delenv(name, raising=False)
    for name, value in {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": address, "HOME": str(home),
                        "KAGGLE_CONFIG_DIR": str(home), "KAGGLE_USERNAME": "jane-doe", "KAGGLE_KEY": "key",
                        "TMPDIR": str(home)}.items():  # fmt: skip
        setenv(name, value)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
