"""A hub that is there, one that is not, and a model that lies in the cache: against a real server and a real cache."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from r1core.api import UserError
from r1core.data.hub import offline


class Refuses(BaseHTTPRequestHandler):
    """A hub that answers, though not with what was asked for."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def forgetful() -> None:
    offline.cache_clear()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds the configuration of `own/model`, as the library lays it out."""
    folder = tmp_path / "models--own--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub at a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_directory_needs_no_hub(tmp_path: Path, nobody: None) -> None:
    assert offline(str(tmp_path), None)


def test_a_hub_that_is_not_there_is_one_line(cached: Path, nobody: None) -> None:
    with pytest.raises(
        UserError, match=r"^model\.hub: other/model is not in the cache .*127\.0\.0\.1.*refused"
    ) as caught:
        offline("other/model", None)
    assert "model.path" in caught.value.fix


def test_a_model_in_the_cache_is_loaded_from_there(cached: Path, nobody: None) -> None:
    assert offline("own/model", None)


def test_a_hub_that_answers_is_asked(cached: Path, answering: None) -> None:
    assert not offline("other/model", None)
