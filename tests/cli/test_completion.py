"""The scripts of `ipvsproxy completion`, in the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.arguments import COMMANDS
from ipvsproxy.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {"help", *(command.name for command in COMMANDS)}


def script(shell: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    file = directory / "script"
    file.write_text(capsys.readouterr().out)
    return file


def run(*command: str | Path) -> str:
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]}")
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stderr == ""
    return ended.stdout


def completed_by_bash(file: Path, *words: str) -> set[str]:
    """Return what bash offers in the place of the last word."""
    typed = " ".join(f'"{word}"' for word in words)
    text = f"source {file}; COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_ipvsproxy"
    return set(run("bash", "-c", f'{text}; printf "%s\\n" "${{COMPREPLY[@]}}"').split())


def test_bash_completes_commands_flags_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script("bash", tmp_path, capsys)
    assert completed_by_bash(file, "ipvsproxy", "") == NAMES
    assert completed_by_bash(file, "ipvsproxy", "du") == {"dump"}
    assert completed_by_bash(file, "ipvsproxy", "dump", "--ser") == {"--service"}
    assert completed_by_bash(file, "ipvsproxy", "dump", "--output", "") == {"table", "wide", "json", "yaml"}
    assert completed_by_bash(file, "ipvsproxy", "help", "ex") == {"explain"}
    (tmp_path / "config.yaml").touch()
    offered = completed_by_bash(file, "ipvsproxy", "run", "--config", f"{tmp_path}/conf")
    assert offered == {f"{tmp_path}/config.yaml"}


def test_fish_completes_commands_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script("fish", tmp_path, capsys)

    def offered(line: str) -> set[str]:
        found = run("fish", "--no-config", "-c", f"source {file}; complete -C '{line}'")
        return {each.partition("\t")[0] for each in found.splitlines()}

    assert offered("ipvsproxy du") == {"dump"}
    assert "--service" in offered("ipvsproxy dump --ser")


def test_zsh_takes_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = script("zsh", tmp_path, capsys)
    run("zsh", "-n", file)
    assert "compdef" in file.read_text().splitlines()[0]
