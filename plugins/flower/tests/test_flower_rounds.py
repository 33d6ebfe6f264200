"""Rounds by Flower itself, as a user runs them: processes, connections, kills. Needs flwr: `make test-flower`."""

from __future__ import annotations

import csv
import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

pytest.importorskip("flwr", reason="Flower has an environment of its own: make test-flower")

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "federated"
PLUGIN = ROOT / "examples" / "hooks" / "model_source.py"
PLANTED = {"north": "zanzibar", "south": "quokka", "east": "periwinkle"}  # stand in every record of a hospital
ROWS = {"north": 24, "south": 32, "east": 40}
TINY = ("model.base=tiny-random", "model.template=chat", 'run.plugins=["flower"]', "model.precision=fp32")


def records(folder: Path) -> None:
    """Each hospital's records, with a word of its own in all of them."""
    for name, word in PLANTED.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            table.writerow(("id", "patient", "text", "answer"))
            for n in range(ROWS[name]):
                table.writerow(
                    (f"{name}{n}", f"{name}-p{n}", f"{word} of {word} and {n}", ("bone", "heart", "skin")[n % 3])
                )
    for name in ("server", "val", "test", "rounds"):
        for file in EXAMPLE.glob(f"{name}.*"):
            (folder / file.name).write_bytes(file.read_bytes())


def command(*words: str, sets: tuple[str, ...] = ()) -> list[str]:
    given = [word for one in (*TINY, *sets) for word in ("--set", one)]
    return [sys.executable, "-m", "r1core", "federate", *words, *given, "--plugin", str(PLUGIN)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(folder: Path, *words: str, sets: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, sets=sets), cwd=folder, env=environment(), capture_output=True, text=True, timeout=500
    )


def r1core(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "r1core", *words]
    return subprocess.run(whole, cwd=folder, env=environment(), capture_output=True, text=True, timeout=200)


def told(run: Path) -> dict[str, object]:
    return json.loads((run / "federated.json").read_text(encoding="utf-8"))


def running_in(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three hospitals on this machine."""
    folder = tmp_path_factory.mktemp("rounds")
    records(folder)
    done = run(folder, "run", "--recipe", "rounds.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "out.txt").write_text(done.stdout)
    return folder


def test_each_round_is_the_mean_of_the_clients_files_by_rows(rounds: Path) -> None:
    """Computed here by numpy alone, from what each client kept of what it sent."""
    home = rounds / "runs"
    for number in (1, 2):
        file = f"checkpoints/step-{number:06d}/adapter.safetensors"
        kept = {name: load_file(home / "rounds-clients" / name / file) for name in ROWS}
        result = load_file(home / "rounds" / file)
        for name, value in result.items():
            mean = sum(ROWS[c] * kept[c][name].astype(np.float64) for c in ROWS) / sum(ROWS.values())
            np.testing.assert_allclose(value, mean, rtol=0, atol=1e-6)
            assert any(not np.array_equal(kept[c][name], kept["north"][name]) for c in ROWS) or not value.any()


def test_the_run_is_one_that_every_verb_takes(rounds: Path) -> None:
    plugin = ("--plugin", str(PLUGIN))
    checked = r1core(rounds, "verify", "runs/rounds")
    assert checked.returncode == 0, checked.stdout
    for part in ("evaluate", "report"):
        done = r1core(rounds, part, "runs/rounds", *plugin)
        assert done.returncode == 0, done.stderr
        assert "train: skipped" in done.stdout
    assert "Federated rounds" in (rounds / "runs/rounds/report.html").read_text()
    asked = r1core(rounds, "generate", "runs/rounds-clients/east", *plugin, "--prompt", "A rash?", "--choices")
    assert asked.returncode == 0, asked.stderr
    adapters = [
        load_file(rounds / "runs" / at / "adapter/adapter_model.safetensors")
        for at in ("rounds", "rounds-clients/east")
    ]
    for name, value in adapters[0].items():
        np.testing.assert_array_equal(value, adapters[1][name])


def test_the_record_says_who_took_part_and_how_far_the_weights_moved(rounds: Path) -> None:
    made = told(rounds / "runs/rounds")
    assert [one["round"] for one in made["rounds"]] == [1, 2]
    for number, one in enumerate(made["rounds"], 1):
        assert (one["answers"], one["missing"]) == (3, 0)
        assert [client["rows"] for client in one["clients"]] == sorted(ROWS.values())
        before, after = (
            load_file(rounds / f"runs/rounds/checkpoints/step-{n:06d}/adapter.safetensors") for n in (1, 2)
        )
        if number == 2:
            moved = sum(float(np.square(after[n].astype("f8") - before[n]).sum()) for n in after) ** 0.5
            assert one["update_norm"] == pytest.approx(moved, rel=1e-5)
    shown = r1core(rounds, "federate", "show", "runs/rounds")
    assert "24+32+40" in shown.stdout
    assert "24+32+40" in (rounds / "out.txt").read_text()


def test_what_is_started_again_when_all_is_done_trains_nothing(rounds: Path) -> None:
    before = (rounds / "runs/rounds/adapter/adapter_model.safetensors").read_bytes()
    done = run(rounds, "run", "--recipe", "rounds.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on behind round 2 of 2" in done.stdout
    assert (rounds / "runs/rounds/adapter/adapter_model.safetensors").read_bytes() == before


class Listener:
    """Stands between clients and server, hands on what they say, and takes down what the clients say."""

    def __init__(self, server: int) -> None:
        self.server, self.said, self.open = server, bytearray(), True
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.door.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.open:
            try:
                client, _ = self.door.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server))
            except OSError:
                client.close()
                continue
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, kept: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if kept:
                    self.said += data
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def close(self) -> None:
        self.open = False
        self.door.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(folder: Path, log: str, *words: str, sets: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / log).open("wb") as out:
        process = subprocess.Popen(command(*words, sets=sets), cwd=folder, env=environment(), stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def test_nothing_but_weights_and_a_number_of_rows_leaves_a_client(tmp_path: Path) -> None:
    """Server and clients as on machines of their own; one of three is of another shape and is left out."""
    records(tmp_path)
    port = free_port()
    listener = Listener(port)
    address = f"127.0.0.1:{port}"
    server = ("server", "--recipe", "rounds.toml", "--address", address, "--insecure", "--run", "runs/all")
    with started(tmp_path, "server.log", *server) as leading:
        sets = {name: (f'data.files.train="{name}.csv"', f'run.name="{name}"') for name in PLANTED}
        sets["east"] = (*sets["east"], "adapter.rank=3")
        to = ("client", "--recipe", "rounds.toml", "--server", f"127.0.0.1:{listener.port}", "--insecure")
        with (
            started(tmp_path, "north.log", *to, sets=sets["north"]) as north,
            started(tmp_path, "south.log", *to, sets=sets["south"]) as south,
            started(tmp_path, "east.log", *to, sets=sets["east"]),
        ):
            assert leading.wait(500) == 0, (tmp_path / "server.log").read_text()
            assert north.wait(60) == south.wait(60) == 0, (tmp_path / "north.log").read_text()
    listener.close()
    made = told(tmp_path / "runs/all")["rounds"]
    assert [(one["answers"], one["missing"]) for one in made] == [(2, 1), (2, 1)]
    assert "other names or shapes" in (tmp_path / "east.log").read_text()  # and the fix, at the client
    said = bytes(listener.said)
    kept = load_file(tmp_path / "runs/north/checkpoints/step-000002/adapter.safetensors")
    largest = max((kept[name] for name in kept if kept[name].any()), key=lambda value: value.size)
    assert largest.tobytes() in said  # what is listened to is what travels, in the clear
    lowered = said.lower()
    for hidden in (*PLANTED.values(), "and 17", "lora_", "north", "south", "other names", str(tmp_path)):
        assert hidden.encode() not in lowered, hidden


def certificates(folder: Path) -> tuple[str, ...]:
    """An authority, and a server's certificate for 127.0.0.1 by it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
    for at, file in enumerate(("ca.pem", "server.pem")):
        made = x509.CertificateBuilder().subject_name(names[at]).issuer_name(names[0]).public_key(keys[at].public_key())
        made = made.serial_number(at + 1).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=at == 0, path_length=None), critical=True)
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        signed = made.add_extension(hosts, critical=False).sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(key)
    return ("--certificate", "server.pem", "--key", "server.key", "--ca", "ca.pem")


@pytest.mark.slow
def test_by_tls_nothing_can_be_read_on_the_way(tmp_path: Path) -> None:
    records(tmp_path)
    port = free_port()
    listener = Listener(port)
    server = ("server", "--recipe", "rounds.toml", "--address", f"127.0.0.1:{port}", *certificates(tmp_path))
    fewer = ("plugins.flower.expected=2", "plugins.flower.rounds=1")
    with started(tmp_path, "server.log", *server, sets=fewer) as leading:
        to = ("client", "--recipe", "rounds.toml", "--server", f"127.0.0.1:{listener.port}", "--ca", "ca.pem")
        sets = {n: (*fewer, f'data.files.train="{n}.csv"', f'run.name="{n}"') for n in ("north", "south")}
        with (
            started(tmp_path, "north.log", *to, sets=sets["north"]) as north,
            started(tmp_path, "south.log", *to, sets=sets["south"]) as south,
        ):
            assert leading.wait(500) == 0, (tmp_path / "server.log").read_text()
            assert north.wait(60) == south.wait(60) == 0, (tmp_path / "north.log").read_text()
    listener.close()
    kept = load_file(tmp_path / "runs/north/checkpoints/step-000001/adapter.safetensors")
    largest = max((kept[name] for name in kept if kept[name].any()), key=lambda value: value.size)
    said = bytes(listener.said)
    assert len(said) > largest.nbytes
    assert largest.tobytes() not in said
    assert b"/fleet/" not in said


@pytest.mark.slow
def test_a_killed_client_is_left_out_and_the_rounds_go_on(tmp_path: Path) -> None:
    records(tmp_path)
    sets = ("plugins.flower.rounds=4",)
    with started(tmp_path, "out.txt", "run", "--recipe", "rounds.toml", sets=sets) as leading:
        pid = int(_said(tmp_path / "out.txt", r"client east: process (\d+)", leading))
        _said(tmp_path / "out.txt", r"(round 1 +answers 3)", leading)
        os.kill(pid, signal.SIGKILL)
        assert leading.wait(500) == 0, (tmp_path / "out.txt").read_text()
    answers = [one["answers"] for one in told(tmp_path / "runs/rounds")["rounds"]]
    assert answers[0] == 3
    assert answers[-1] == 2
    assert len(answers) == 4


@pytest.mark.slow
def test_a_killed_server_takes_its_clients_along_and_goes_on_behind_the_last_round(tmp_path: Path) -> None:
    records(tmp_path)
    with started(tmp_path, "out.txt", "run", "--recipe", "rounds.toml") as leading:
        _said(tmp_path / "out.txt", r"(round 1 +answers 3)", leading)
        others = [one for one in running_in(tmp_path) if one.pid != leading.pid]
        assert len(others) >= 7  # three clients, their SuperNodes, the SuperLink
        leading.kill()
        leading.wait()
        assert psutil.wait_procs(others, timeout=60)[1] == []
    first = load_file(tmp_path / "runs/rounds/checkpoints/step-000001/adapter.safetensors")
    done = run(tmp_path, "run", "--recipe", "rounds.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on behind round 1 of 2" in done.stdout
    assert [one["round"] for one in told(tmp_path / "runs/rounds")["rounds"]] == [1, 2]
    for name, value in load_file(tmp_path / "runs/rounds/checkpoints/step-000001/adapter.safetensors").items():
        np.testing.assert_array_equal(value, first[name])


@pytest.mark.slow
def test_clients_elsewhere_come_back_to_a_server_that_was_started_again(tmp_path: Path) -> None:
    records(tmp_path)
    address, sets = f"127.0.0.1:{free_port()}", ("plugins.flower.expected=2", "plugins.flower.rounds=3")
    server = ("server", "--recipe", "rounds.toml", "--address", address, "--insecure", "--run", "runs/all")
    to = ("client", "--recipe", "rounds.toml", "--server", address, "--insecure")
    own = {name: (*sets, f'data.files.train="{name}.csv"', f'run.name="{name}"') for name in ("north", "south")}
    with (
        started(tmp_path, "north.log", *to, sets=own["north"]) as north,
        started(tmp_path, "south.log", *to, sets=own["south"]) as south,
    ):
        with started(tmp_path, "first.log", *server, sets=sets) as leading:
            _said(tmp_path / "first.log", r"(round 1 +answers 2)", leading)
            leading.kill()
            leading.wait()
        with started(tmp_path, "second.log", *server, sets=sets) as leading:
            assert leading.wait(500) == 0, (tmp_path / "second.log").read_text()
        assert north.wait(60) == south.wait(60) == 0, (tmp_path / "north.log").read_text()
    assert re.search(r"going on behind round [12] of 3", (tmp_path / "second.log").read_text())
    assert [one["round"] for one in told(tmp_path / "runs/all")["rounds"]] == [1, 2, 3]


def _said(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    """What a process says in its log, once it does."""
    waiting = threading.Event()
    for _ in range(1200):
        if found := re.search(pattern, log.read_text()):
            return found[1]
        assert process.poll() is None, log.read_text()
        waiting.wait(0.25)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_patients_epsilon_at_the_clients_holds_over_all_rounds(tmp_path: Path) -> None:
    records(tmp_path)
    for name in ("north", "south"):
        text = (tmp_path / "rounds.toml").read_text().replace('"smollm2", "flower"', '"flower", "dp"')
        text = text.replace('id = "id"', 'id = "id"\ngroup = "patient"').replace(
            'train = "server.csv"', f'train = "{name}.csv"'
        )
        text = text.replace("smollm2-135m-instruct", "tiny-random").replace('"plain"', '"chat"')
        text = text.replace("[train]", '[train]\npacking = "padded"').replace('name = "rounds"', f'name = "{name}"')
        own = re.sub(r"\[plugins.flower.clients\].*|(val|test) = .*?\n", "", text, flags=re.DOTALL)
        (tmp_path / f"{name}.toml").write_text(own + f'\n[plugins.dp]\ndataset_id = "{name}"\nledger = "ledgers"\n')
    recipe = tmp_path / "rounds.toml"
    named = 'dp = "client"\n[plugins.flower.clients]\nnorth = "north.toml"\nsouth = "south.toml"\n'
    recipe.write_text(re.sub(r"\[plugins.flower.clients\].*", named, recipe.read_text(), flags=re.DOTALL))
    done = run(tmp_path, "run", "--recipe", "rounds.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("north", "south"):
        card = json.loads((tmp_path / f"runs/rounds-clients/{name}/privacy/card.json").read_text())
        assert card["steps_counted"] == 4  # two rounds of two steps
        assert 2.9 < card["epsilon"] <= 3.0
        assert PLANTED[name] not in (tmp_path / f"runs/rounds-clients/{name}.log").read_text()


@pytest.mark.slow
def test_the_servers_noise_is_accounted_for_and_single_clients_are_not_told(tmp_path: Path) -> None:
    records(tmp_path)
    clip, noise = 0.05, 3.0
    sets = ('plugins.flower.dp="server"', f"plugins.flower.clip={clip}", f"plugins.flower.noise_multiplier={noise}")
    done = run(tmp_path, "run", "--recipe", "rounds.toml", sets=(*sets, "plugins.flower.delta=1e-3"))
    assert done.returncode == 0, done.stdout + done.stderr
    made = told(tmp_path / "runs/rounds")
    assert "for each whole client" in done.stdout
    assert made["privacy"]["rounds_counted"] == 2
    assert all("clients" not in one for one in made["rounds"])
    first, second = (load_file(tmp_path / f"runs/rounds/checkpoints/step-{n:06d}/adapter.safetensors") for n in (1, 2))
    moved = np.concatenate([(second[n].astype("f8") - first[n]).ravel() for n in first])
    assert np.std(moved) == pytest.approx(noise * clip / 3, rel=0.1)  # the noise on the mean of three


def test_an_error_in_training_is_told_without_its_words() -> None:
    from flwr.app import Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity
    from r1core_flower.client import Client

    class Broken:
        rows, private = 1, False

        def begin(self, rounds: int) -> None:
            return None

        def weights(self) -> dict[str, np.ndarray]:
            return {"w": np.zeros(1, "f4")}

    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
    heard: list[str] = []
    from r1core_flower.config import FlowerConfig

    client = Client(Broken(), FlowerConfig(), heard.append)  # type: ignore[arg-type]

    def quoting(message: Message, context: object) -> Message:
        raise ValueError("row 7: 'zanzibar'")

    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    reply = client._guarded(quoting)(asked, None)  # type: ignore[arg-type]
    assert reply.has_error()
    assert "zanzibar" not in str(reply.error)
    assert any("zanzibar" in line for line in heard)
