"""Installing on demand, from wheels that the test makes: no network."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tidegate_local_model.install import Installer, InstallError, default_command

WANTED = ("fake-server==1.0", "fake-model==2.0")


def make_wheel(folder: Path, name: str, version: str) -> None:
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", f"VERSION = {version!r}\n")
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", f"{head}Requires-Dist: not-there-at-all\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path):
    for requirement in WANTED:
        make_wheel(tmp_path / "wheels", *requirement.split("=="))
    return tmp_path / "wheels"


@pytest.fixture
def offline(wheels):
    def command(target, requirements):
        return [
            *default_command(target, requirements),
            "--no-index",
            "--find-links",
            str(wheels),
        ]

    return command


def script(code: str):
    """An installer that runs `code` with the target folder as its argument."""
    return lambda target, _: [sys.executable, "-c", code, str(target)]


def test_what_is_missing_is_installed_without_its_dependencies(tmp_path, offline):
    installer = Installer(tmp_path / "state" / "site", WANTED, offline)
    assert not installer.installed
    installer.ensure()
    assert installer.installed
    for name in ("fake_server", "fake_model"):
        assert (tmp_path / "state" / "site" / name / "__init__.py").is_file()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["site"]


def test_what_is_there_is_not_installed_again(tmp_path, offline):
    Installer(tmp_path / "site", WANTED, offline).ensure()
    Installer(tmp_path / "site", WANTED, script("raise SystemExit(9)")).ensure()


def test_other_versions_replace_what_is_there(tmp_path, offline, wheels):
    Installer(tmp_path / "site", WANTED, offline).ensure()
    make_wheel(wheels, "fake-model", "3.0")
    Installer(tmp_path / "site", (WANTED[0], "fake-model==3.0"), offline).ensure()
    assert "3.0" in (tmp_path / "site" / "fake_model" / "__init__.py").read_text()


@pytest.mark.parametrize(
    "code",
    [
        "import sys; open(sys.argv[1] + '/half', 'w'); sys.exit(3)",
        "import os, sys; open(sys.argv[1] + '/half', 'w'); os.kill(os.getpid(), 9)",
    ],
    ids=["fails", "is killed"],
)
def test_a_failed_install_leaves_nothing_and_says_how_to_retry(tmp_path, code):
    installer = Installer(tmp_path / "state" / "site", WANTED, script(code))
    with pytest.raises(InstallError, match=r"fake-server==1\.0.* failed.*start again"):
        installer.ensure()
    assert list((tmp_path / "state").iterdir()) == []
    assert not installer.installed


def test_an_install_that_was_killed_with_its_parent_is_cleaned_up_by_the_next(tmp_path, offline):
    (tmp_path / "state" / ".site-left").mkdir(parents=True)
    (tmp_path / "state" / ".site-left" / "half").touch()
    Installer(tmp_path / "state" / "site", WANTED, offline).ensure()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["site"]


def test_a_folder_without_its_mark_is_not_taken_for_whole(tmp_path, offline):
    (tmp_path / "site" / "fake_model").mkdir(parents=True)
    installer = Installer(tmp_path / "site", WANTED, offline)
    assert not installer.installed
    installer.ensure()
    assert (tmp_path / "site" / "fake_server").is_dir()


def test_a_requirement_that_is_not_to_be_had_is_told(tmp_path, offline):
    with pytest.raises(InstallError, match="no-such-thing"):
        Installer(tmp_path / "site", ("no-such-thing==1",), offline).ensure()


def test_an_installer_that_is_not_there_is_told(tmp_path):
    installer = Installer(tmp_path / "site", WANTED, lambda *_: ["/nonexistent/installer"])
    with pytest.raises(InstallError, match="can't be run"):
        installer.ensure()


def test_pip_is_used_where_uv_does_not_work(tmp_path, monkeypatch):
    broken = tmp_path / "uv"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("UV", str(broken))
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\nexit 0\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    command = default_command(tmp_path / "site", WANTED)
    assert command[:4] == [str(pip), "-m", "pip", "install"]
    pip.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(sys, "_base_executable", str(broken))
    with pytest.raises(InstallError, match="neither uv nor pip"):
        default_command(tmp_path / "site", WANTED)


def test_standard_output_stays_clean(tmp_path):
    program = (
        "import sys; from pathlib import Path; from tidegate_local_model.install import Installer\n"
        "noisy = [sys.executable, '-c', 'print(1234567)']\n"
        "Installer(Path(sys.argv[1]), ('a==1',), lambda *_: noisy).ensure()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == ""
    assert "1234567" in done.stderr
    assert "Installing the local model" in done.stderr
