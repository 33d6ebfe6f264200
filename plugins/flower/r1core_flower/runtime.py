"""Flower's programs, and our two ends at them. All that is not Flower's documented interface stands in this module.

SuperLink (at the server) and SuperNode (at each client) are Flower's own programs. They run in the isolation mode
`process`: they carry messages, and run no app. The apps run here, in the process of the verb, as they were installed. A
server that sends another app along makes no client run it, since the client never looks at it.

Flower's telemetry and its look for updates are off.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r1core.api import R1Error, UserError

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.supercore.runtime import RuntimeHttpClient

INSTALL = "pip install 'r1core-flower[rounds]', in an environment of its own: flwr does not go with rich 15"
START = 90.0  # seconds that a program may take to listen
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2), Linux
POLL = 0.5  # seconds between two looks for work
OFF = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "GRPC_VERBOSITY": "NONE"}
APP = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "r1core-rounds"
version = "1.0.0"
description = "Holds no code: both ends run their own installed r1core-flower"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "r1core"

[tool.flwr.app.components]
serverapp = "flwr.serverapp:ServerApp"
clientapp = "flwr.clientapp:ClientApp"

[tool.flwr.app.config]
"""


class Lost(UserError):
    """The connection to the server is gone, and Flower does not go on trying."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: at a server all three, at a client the authority's certificate. None of them: plain HTTP."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def insecure(self) -> bool:
        """Whether nothing is encrypted."""
        return self.authority is None


@dataclass(frozen=True, slots=True)
class Link:
    """Where a program of Flower's gives out work, and the secret that it gives it out for.

    `folder` : of this end's own files, Flower's included.
    """

    address: str
    folder: Path
    secret: bytes
    tls: Tls
    program: subprocess.Popen[bytes]


def require_flower() -> None:
    """Switch Flower's telemetry off and its log down to errors; let a termination end this process in order.

    Raises
    ------
    UserError : where Flower is not installed, or another series of it.
    """
    os.environ.update(OFF)
    try:
        from importlib.metadata import version

        found = version("flwr")
    except ModuleNotFoundError as error:
        raise UserError("Flower is not installed", fix=INSTALL) from error
    if not found.startswith("1.42."):
        raise UserError(f"flwr {found}, and this plugin is for 1.42", fix=INSTALL)
    import flwr.supercore  # noqa: F401  # sets up the logger that is turned down next

    logging.getLogger("flwr").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def superlink(address: str, tls: Tls, folder: Path) -> Iterator[Link]:
    """Flower's server, listening at `address`, until the block ends."""
    host, _, port = address.rpartition(":")
    command = ["flower-superlink", "--host", host, "--port", port, "--disable-runtime-dependency-installation"]
    if tls.insecure:
        command += ["--insecure"]
    else:
        command += ["--ssl-ca-certfile", str(tls.authority), "--ssl-certfile", str(tls.certificate)]
        command += ["--ssl-keyfile", str(tls.key)]
    near = "127.0.0.1" if host in ("0.0.0.0", "") else host
    with _program(command, folder, f"{near}:{port}", tls) as link:
        yield link


@contextmanager
def supernode(server: str, tls: Tls, folder: Path, wait: float) -> Iterator[Link]:
    """Flower's client, connected to the server, until the block ends.

    Parameters
    ----------
    wait : seconds after which it gives up a server that does not answer.
    """
    own = f"127.0.0.1:{free_port()}"
    command = ["flower-supernode", "--superlink", server, "--host", "127.0.0.1", "--port", own.rpartition(":")[2]]
    command += ["--max-wait-time", str(wait)]
    command += ["--insecure"] if tls.insecure else ["--root-certificates", str(tls.authority)]
    with _program(command, folder, own, Tls()) as link:
        yield link


@contextmanager
def _program(command: Sequence[str], folder: Path, address: str, tls: Tls) -> Iterator[Link]:
    """One of Flower's programs with a fresh secret; its words go to `flower.log` in the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = folder / "secret"
    secret.unlink(missing_ok=True)
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secrets.token_bytes(32))
    program = str(Path(sys.executable).parent / command[0])
    whole = [program, *command[1:], "--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    os.environ["FLWR_HOME"] = str(folder / "flower")  # for what is asked of Flower in this process as well
    with (folder / "flower.log").open("ab") as told:
        environment = {**os.environ, **OFF}
        process = subprocess.Popen(whole, stdout=told, stderr=told, env=environment, preexec_fn=ending_with_us)
        try:
            _listening(process, address, folder / "flower.log")
            yield Link(address, folder, secret.read_bytes(), tls, process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            secret.unlink(missing_ok=True)


def ending_with_us() -> None:
    """In a child: be told to end when the parent dies, however it dies, so that a killed client leaves the server."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _listening(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Return once a program takes connections.

    Raises
    ------
    UserError : when it ended instead, or took too long.
    """
    host, _, port = address.rpartition(":")
    until = time.monotonic() + START
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(POLL)
    raise UserError(f"Flower did not start at {address}: {_last(log)}", fix=f"see {log}; is the address free?")


def _last(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no word of it"


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_server(link: Link, app: ServerApp) -> None:
    """Run the server's app at a SuperLink to its end. What it raises passes."""
    from flwr.common.constant import SubStatus
    from flwr.common.serde import context_from_proto, run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    _submit(link)
    token = next(_tokens(link, "flwr-serverapp", lambda: None))
    root = None if link.tls.authority is None else link.tls.authority.read_bytes()
    grid = HttpGrid(link.address, link.tls.insecure, root, token=token)
    client = grid._runtime_client
    given = client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    grid.set_run(run_from_proto(given.run))
    heart = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heart.start()
    status = SubStatus.FAILED
    try:
        app(grid, context_from_proto(given.context))
        status = SubStatus.COMPLETED
    finally:
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
        heart.stop()
        grid.close()


def _submit(link: Link) -> None:
    """Begin a run at the SuperLink by `flwr run`, with an app that holds no code."""
    app, home = link.folder / "r1core-rounds", link.folder / "flower"
    app.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    (app / "pyproject.toml").write_text(APP, encoding="utf-8")
    root = "" if link.tls.insecure else f"root-certificates = {json.dumps(str(link.tls.authority))}\n"
    connection = f'[superlink.here]\naddress = "{link.address}"\ninsecure = {str(link.tls.insecure).lower()}\n{root}'
    (home / "config.toml").write_text(connection, encoding="utf-8")
    command = [str(Path(sys.executable).parent / "flwr"), "run", str(app), "here", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **OFF}, timeout=120)
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = {"success": False, "error-message": done.stdout + done.stderr}
    if not told["success"]:  # it exits with 0 all the same
        raise R1Error(f"Flower did not begin a run: {str(told.get('error-message')).strip()[-500:]}")


def run_client(link: Link, app: ClientApp, ended: Callable[[], bool]) -> None:
    """Answer the server's messages by the client's app, until `ended`.

    Raises
    ------
    Lost : when Flower gives the server up.
    """
    from flwr.common.constant import SubStatus
    from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

    for token in _tokens(link, "flwr-clientapp", lambda: _alive(link)):
        client = _runtime(link, token=token)
        message, context, *_ = pull_task_input(client)
        with _beating(client):
            reply = app(message, context)
            push_message(client, reply, context)
        push_task_output(client, context, SubStatus.COMPLETED, "")
        client.close()
        if ended():
            return


def _alive(link: Link) -> None:
    """Nothing, while Flower's program runs.

    Raises
    ------
    Lost : when it has ended.
    """
    if link.program.poll() is not None:
        log = link.folder / "flower.log"
        raise Lost("the server does not answer: " + _last(log), fix="start the client again once the server is there")


@contextmanager
def _beating(client: RuntimeHttpClient) -> Iterator[None]:
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http

    heart = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heart.start()
    try:
        yield
    finally:
        heart.stop()


def _tokens(link: Link, kind: str, between: Callable[[], None]) -> Iterator[str]:
    """The token of each piece of work that a program of Flower's has for this end, as it comes; `between` may raise."""
    import httpx
    from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse

    client = _runtime(link)
    try:
        while True:
            between()
            try:
                given = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
            except httpx.TransportError:  # the program is ending: `between` will say so
                given = AcquireTaskResponse()
            if given.HasField("task") and given.token:
                yield given.token
            else:
                time.sleep(POLL)
    finally:
        client.close()


def _runtime(link: Link, token: str = "") -> RuntimeHttpClient:
    from flwr.supercore.interceptors import (
        RuntimeTokenHttpInterceptor,
        RuntimeVersionHttpInterceptor,
        SuperExecAuthHttpInterceptor,
    )
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supercore.runtime import RuntimeHttpClient

    own = (
        RuntimeTokenHttpInterceptor(token)
        if token
        else SuperExecAuthHttpInterceptor(
            master_secret=link.secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
        )
    )
    root = None if link.tls.authority is None else link.tls.authority.read_bytes()
    return RuntimeHttpClient.from_server_address(
        server_address=link.address,
        insecure=link.tls.insecure,
        root_certificates=root,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), own],
        retry_invoker=make_simple_http_retry_invoker() if token else None,
    )
