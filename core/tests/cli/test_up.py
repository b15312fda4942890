"""`tidegate up` as real processes on free ports."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.cli.up import answers
from tidegate.runtime.settings import parse

from .conftest import CONFIG, Node, eventually

Up = Callable[..., Node]
Run = Callable[..., subprocess.CompletedProcess[str]]


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def raw_get(sock: socket.socket, path: str) -> bytes:
    """Send a request and read to the end of the connection."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def test_ready_line_names_all_that_a_tool_needs(up: Up, tmp_path: Path) -> None:
    node = up(text="first")
    assert node.started["api_key"] == "tg_cli_test_key_0123456789"
    assert node.started["console"] is None
    assert node.started["state"] == str(tmp_path / ".tidegate")
    assert stat.S_IMODE((tmp_path / ".tidegate").stat().st_mode) == 0o700
    assert node.get().text == "first"


def test_health_ready_and_status_are_told(up: Up) -> None:
    node = up(workers=2)
    assert node.get().status_code == 200
    assert node.status("healthy").status_code == 200
    assert node.status("ready").status_code == 200
    body = node.status().json()
    assert body["revision"] == 1
    assert body["last_reload"] is None
    assert len(body["config_digest"]) == 16
    assert len({worker["pid"] for worker in body["workers"]}) == 2
    assert all(w["ready"] and w["rss"] > 1_000_000 for w in body["workers"])
    counted = [w["counters"]["answer"].get("answers_total", 0) for w in body["workers"]]
    assert sum(counted) == 1


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
def test_status_refuses_a_foreign_host(up: Up, host: str) -> None:
    answer = up().status(headers={"host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_host"


def test_status_refuses_what_is_not_a_get(up: Up) -> None:
    node = up()
    address = ("127.0.0.1", int(node.started["status"].rpartition(":")[2]))
    for request, status in [
        (b"POST /-/status HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"GET /else HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"\x16\x03\x01junk\r\n\r\n", b"400"),
        (b"GET /-/status HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"400"),
    ]:
        with socket.create_connection(address, 10) as sock:
            sock.sendall(request)
            assert sock.recv(65536).split()[1] == status
    assert node.status("healthy").status_code == 200


def test_sigterm_finishes_what_is_in_progress_and_exits_0(up: Up) -> None:
    node = up()
    with socket.create_connection(node.address, 20) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: node.status().json()["workers"][0]["active"])
        node.send(signal.SIGTERM)
        assert eventually(lambda: node.status("ready").status_code == 503)
        assert b" 200 " in sock.recv(65536)
    node.event("stopped")
    assert node.stop() == 0


def test_a_second_interrupt_ends_it_at_once(up: Up) -> None:
    node = up()
    with socket.create_connection(node.address, 20) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: node.status().json()["workers"][0]["active"])
        node.send(signal.SIGINT)
        node.event("stopping")
        node.send(signal.SIGINT)
        assert sock.recv(65536) == b""
    assert node.stop() == 0


def test_no_process_is_left_when_the_supervisor_is_killed(up: Up) -> None:
    node = up(config=CONFIG.format(workers=1, text="x") + "process = true\n")
    side = Path(node.started["state"]) / "addons" / "answer" / "process"
    eventually(side.exists)
    pids = [*node.pids(), int(side.read_text())]
    node.stop(signal.SIGKILL)
    eventually(lambda: not any(exists(pid) for pid in pids))
    with socket.socket() as sock:  # the port is free again
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(node.address)


def test_a_taken_port_is_named(up: Up, tidegate: Run, tmp_path: Path) -> None:
    node = up()
    address = f"127.0.0.1:{node.address[1]}"
    done = tidegate("up", "--json", "--listen", address, "--state", str(tmp_path / "other"))
    assert done.returncode == 2
    event = json.loads(done.stdout)
    assert event["event"] == "error"
    assert event["problems"][0]["code"] == "port_taken"
    assert f"error: {address} is taken" in done.stderr
    assert node.get().status_code == 200


def test_a_state_folder_that_is_a_file_is_refused(tidegate: Run, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    done = tidegate("up", "--state", "state")
    assert done.returncode == 2
    assert "[state_not_writable]" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_addon_that_fails_to_start_stops_the_start(tidegate: Run, tmp_path: Path) -> None:
    (tmp_path / "addons.toml").write_text(
        CONFIG.format(workers=2, text="x") + "fail_startup = true\n"
    )
    done = tidegate("up", "--json")
    assert done.returncode == 2
    announced, error = map(json.loads, done.stdout.splitlines())
    assert announced == {"event": "announced", "api_key": "tg_cli_test_key_0123456789"}
    assert error["problems"][0]["code"] == "startup_failed"
    assert 'addons.toml:8: addon "answer": told to fail' in done.stderr


def test_interception_in_production_does_not_start_unless_forced(
    tidegate: Run, up: Up, tmp_path: Path
) -> None:
    text = CONFIG.format(workers=1, text="x").replace(
        "[gateway]", '[gateway]\nenvironment = "production"', 1
    )
    way_in = '[[intercept]]\nmode = "regular@127.0.0.1:0"\nallow_hosts = ["a.test"]\n'
    (tmp_path / "addons.toml").write_text(text + way_in)
    done = tidegate("up", "--state", str(tmp_path / "state"))
    assert done.returncode == 2
    assert "no interception in production (force = true, if you mean it)" in done.stderr
    node = up(config=text + way_in + "force = true\n")
    assert node.started["intercept"]["regular"][0].startswith("127.0.0.1:")


def test_people_are_welcomed_with_a_call_to_paste(env: dict[str, str], tmp_path: Path) -> None:
    way_in = '[[intercept]]\nmode = "regular@127.0.0.1:0"\n'
    (tmp_path / "addons.toml").write_text(CONFIG.format(workers=1, text="x") + way_in)
    import sys

    with subprocess.Popen(
        [sys.executable, "-m", "tidegate.cli.main", "up"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert process.poll() is None  # it is told while the node runs
        process.terminate()
        assert process.wait(30) == 0
    text = "".join(lines)
    assert "curl -N http://127.0.0.1:" in text
    assert "tg_cli_test_key_0123456789" in text
    assert re.search(r"intercept +regular  127\.0\.0\.1:\d+\n", text)
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("uses", "words"),
    [
        ([], "nothing yet: no addon routes anywhere"),
        (["auth-key", "demo-upstream"], "the demo model: no provider, no network"),
        (["route-static", "demo-upstream"], 'what the addon "route-static" routes to'),
        (["route-service"], "the services of the platform"),
        (
            ["route-service", "demo-upstream"],
            "the services of the platform, else the demo model: no provider, no network",
        ),
    ],
)
def test_the_welcome_says_who_answers(uses: list[str], words: str) -> None:
    text = "".join(f'[[addon]]\nuse = "{use}"\n' for use in uses)
    assert answers(parse(text)) == words


# -- workers ------------------------------------------------------------------------------------


def test_a_dead_worker_is_started_again_and_the_next_request_works(up: Up) -> None:
    node = up()
    (before,) = node.pids()
    with socket.create_connection(node.address, 20) as sock:
        assert raw_get(sock, "/die") == b""
    assert node.get().status_code == 200  # waits in the accept queue for the successor
    (after,) = eventually(node.pids)
    assert after != before
    assert node.status().json()["workers"][0]["restarts"] == 1
    assert "ended with status 9" in node.log()


def test_a_crash_loop_is_told_with_its_last_lines_and_ends_when_its_cause_does(up: Up) -> None:
    node = up()
    for _ in range(5):
        eventually(node.pids)
        with socket.create_connection(node.address, 30) as sock:
            assert raw_get(sock, "/die") == b""
    eventually(lambda: "crash loop: worker" in node.log())
    assert "told to die" in node.log().partition("crash loop")[2]
    assert node.get().status_code == 200


def test_connections_that_wait_survive_the_death_of_a_worker(up: Up) -> None:
    node = up()
    (pid,) = node.pids()
    os.kill(pid, signal.SIGSTOP)
    waiting = [socket.create_connection(node.address, 30) for _ in range(100)]
    os.kill(pid, signal.SIGKILL)
    answers = [raw_get(sock, "/") for sock in waiting]
    assert all(answer.endswith(b"hello") for answer in answers)
    for sock in waiting:
        sock.close()


def test_a_rolling_restart_replaces_every_worker_and_drops_nothing(up: Up) -> None:
    node = up(workers=2)
    before = set(node.pids())
    failed: list[str] = []
    done = threading.Event()
    count = 0

    def load() -> None:
        nonlocal count
        while not done.is_set():
            with socket.create_connection(node.address, 20) as sock:
                if not raw_get(sock, "/").endswith(b"hello"):
                    failed.append("cut")
            count += 1

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        node.send(signal.SIGUSR2)
        assert node.event("restart", 60)["ok"]
        eventually(lambda: not any(exists(pid) for pid in before))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert count > 10
    assert not before & set(node.pids())


def test_bootstrap_runs_once_and_is_shared_with_every_worker(up: Up) -> None:
    node = up(workers=2)
    folder = Path(node.started["state"]) / "addons" / "answer"
    assert (folder / "bootstraps").read_text() == "x"
    assert node.get("/shared").text == f"{{'pid': {node.process.pid}}}"


def test_a_process_of_an_addon_is_restarted_and_ends_with_the_node(up: Up) -> None:
    node = up(config=CONFIG.format(workers=1, text="x") + "process = true\n")
    seen = Path(node.started["state"]) / "addons" / "answer" / "process"
    eventually(seen.exists)
    first = int(eventually(seen.read_text))
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(seen.read_text().split()) == 2)
    second = int(seen.read_text().split()[1])
    assert exists(second)
    assert node.stop() == 0
    assert not exists(second)


# -- reload -------------------------------------------------------------------------------------


def test_an_edit_takes_effect_without_restart(up: Up) -> None:
    node = up(workers=2, text="old")
    pids = node.pids()
    assert node.get().text == "old"
    node.file.write_text(CONFIG.format(workers=2, text="new"))
    assert node.event("reload") == {
        "event": "reload", "revision": 2, "ok": True, "problems": [], "needs_restart": [],
    }  # fmt: skip
    assert {node.get().text for _ in range(8)} == {"new"}
    assert node.pids() == pids
    assert node.status().json()["revision"] == 2


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        ("[gateway\n", "config_syntax", 1),
        (CONFIG.format(workers=1, text="new") + "fail_startup = true\n", "startup_failed", 8),
        (CONFIG.format(workers=1, text="new").replace("answer", "answr"), "unknown_plugin", 9),
        (CONFIG.format(workers=1, text="new") + "txet = 1\n", "unknown_key", 11),
    ],
)
def test_a_bad_edit_is_refused_and_the_old_configuration_serves(
    up: Up, content: str, code: str, line: int
) -> None:
    node = up(text="old")
    node.file.write_text(content)
    event = node.event("reload")
    assert not event["ok"]
    assert event["problems"][0]["code"] == code
    assert event["problems"][0]["line"] == line
    assert node.get().text == "old"
    assert node.status().json()["last_reload"]["problems"][0]["code"] == code
    eventually(lambda: f"addons.toml:{line}: " in node.log())
    node.file.write_text(CONFIG.format(workers=1, text="good again"))
    assert node.event("reload")["ok"]
    assert node.get().text == "good again"


def test_a_missing_file_is_refused_and_the_old_configuration_serves(up: Up) -> None:
    node = up(text="old")
    node.file.unlink()
    assert node.event("reload")["problems"][0]["code"] == "config_unreadable"
    assert node.get().text == "old"


def test_what_needs_a_restart_is_said_and_the_rest_is_applied(up: Up) -> None:
    node = up(text="old")
    changed = CONFIG.format(workers=3, text="new").replace("127.0.0.1:0", "127.0.0.1:1")
    node.file.write_text(changed)
    event = node.event("reload")
    assert event["ok"]
    assert sorted(event["needs_restart"]) == ["gateway.listen", "gateway.workers"]
    assert node.get().text == "new"
    eventually(lambda: "gateway.listen takes effect only after a restart" in node.log())


def test_sighup_reads_the_configuration_again(up: Up) -> None:
    node = up()
    node.send(signal.SIGHUP)
    assert node.event("reload")["revision"] == 2


def test_a_worker_that_is_restarted_gets_the_configuration_in_force(up: Up) -> None:
    node = up(text="old")
    node.file.write_text(CONFIG.format(workers=1, text="new"))
    assert node.event("reload")["ok"]
    os.kill(node.pids()[0], signal.SIGKILL)
    assert node.get().text == "new"
    eventually(node.pids)


def test_reloads_under_load_drop_nothing(up: Up) -> None:
    node = up(workers=2, text="text 0")
    done = threading.Event()
    wrong: list[bytes] = []

    def load() -> None:
        while not done.is_set():
            with socket.create_connection(node.address, 20) as sock:
                answer = raw_get(sock, "/")
            if b"\r\n\r\ntext " not in answer:
                wrong.append(answer)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for number in range(1, 7):
            node.file.write_text(CONFIG.format(workers=2, text=f"text {number}"))
            assert node.event("reload")["ok"]
        node.file.write_text("nonsense")
        assert not node.event("reload")["ok"]
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert node.get().text == "text 6"
