"""Every command and every Python block of README, docs/ and examples/README.md, run as it is printed.

A page runs in a folder of its own that holds a copy of examples/, its blocks in order: console blocks one command at
a time, Python blocks in one program. What a page shows beneath a command must be printed, in that order; more may be.
Times differ always. The embedded upstream stands for the providers. An HTML comment before a block says more:

    <!-- not run: why -->               what needs a key, a network, data or minutes that a test does not have
    <!-- figures differ: why -->        numbers are not compared
    <!-- exit 1: why -->                each command of the block ends with this status
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from router import catalog, settings
from router.decide.rules import Rules
from router.offline import Upstream
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_NOT_RUN = 11
WAIT_S = 120.0

_BLOCK = re.compile(
    r"(?:^<!-- (?P<said>[^\n]*) -->\n+)?^```(?P<language>console|sh|python)\n(?P<text>.*?)^```$", re.M | re.S
)
_SAID = re.compile(r"(?P<what>not run|figures differ|exit (?P<status>\d)): (?P<why>\S.*)")
_SERVER = re.compile(r"(?:tierwise serve|-m router\.offline --port \d+)(?:\s*&)?\s*(?:#.*)?$")
_VALUE = re.compile(
    r'^(?P<value>[^#=\n]+?) +# (?P<said>"[^"\n]+")', re.M
)  # an expression, and what the page says it is
_LOGGED = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ ")
_TIMES = re.compile(r"\d+(?:\.\d+)? (?=us|ms|s\b)")

CLAUDE = (
    'curl -fsS "$ANTHROPIC_BASE_URL/v1/messages" -H "x-api-key: any" -H "content-type: application/json" '
    "-d @monday.json -o reply.json"
)
"""What stands for `claude`, as `your-program` is gateway_client.py: it asks where its environment says."""

GIVEN = """
import json, pathlib
import anthropic
from router import record_of, wrap
SYSTEM = pathlib.Path("system_prompt.md").read_text("utf-8")
MESSAGES = [{"role": "user", "content": "Is a signature needed for tracked delivery?"}]
monday, tuesday = (json.loads(pathlib.Path(f"{day}.json").read_text("utf-8")) for day in ("monday", "tuesday"))
client = wrap(anthropic.Anthropic())
reply = client.messages.create(model="auto", max_tokens=64, messages=MESSAGES)
"""
"""What the Python blocks take as given: a prompt, messages, two bodies, a client and a reply."""


@dataclass(frozen=True)
class Block:
    """A block of a page; `line` is where it begins. `said` is the comment before it, or None."""

    line: int
    language: str
    text: str
    said: re.Match[str] | None

    def says(self, what: str) -> bool:
        return self.said is not None and self.said["what"].startswith(what)

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """(command, what is shown beneath it)."""
        command, shown = "", list[str]()
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, shown
                command, shown = line[2:], []
            elif command and line.strip():
                shown.append(line.rstrip())
        if command:
            yield command, shown


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        said = match["said"]
        assert said is None or _SAID.fullmatch(said), f"{page.name}:{line}: <!-- {said} --> is none of {__doc__}"
        found.append(Block(line, match["language"], match["text"], said and _SAID.fullmatch(said)))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Place:
    """A folder with the examples, and ports of its own for those that the pages name."""

    folder: Path
    upstream: str
    cache: Path
    ports: dict[str, str] = field(default_factory=lambda: {"8484": str(free_port())})

    def __post_init__(self) -> None:
        self.ports["8485"] = self.upstream.rpartition(":")[2]
        ignored = shutil.ignore_patterns("*.db*", "models", "__pycache__")
        shutil.copytree(ROOT / "examples", self.folder / "examples", ignore=ignored)
        (self.folder / "data").symlink_to(ROOT / "data")
        self.cwd = self.folder / "examples"
        settings = self.cwd / "tierwise.toml"
        settings.write_text(self.here(settings.read_text("utf-8")), "utf-8")
        programs = self.folder / "bin"
        programs.mkdir()
        for name, program in (("your-program", f'"{sys.executable}" gateway_client.py'), ("claude", CLAUDE)):
            (programs / name).write_text(f"#!/bin/sh\nexec {program}\n")
            (programs / name).chmod(0o755)

    def here(self, text: str) -> str:
        """A text of a page with the ports of this place; an upstream that it starts gets another."""
        text = re.sub(r"(?<=router\.offline --port )8485", lambda _: str(free_port()), text)
        return re.sub("|".join(self.ports), lambda match: self.ports[match[0]], text)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIERWISE_", "XDG_"))}
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), kept["PATH"]])
        return {
            **kept,
            "PATH": path,
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.cache),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH")))),
            "TIERWISE_GATEWAY_PORT": self.ports["8484"],
            "ANTHROPIC_BASE_URL": self.upstream,
            "OPENAI_BASE_URL": f"{self.upstream}/v1",
            "ANTHROPIC_API_KEY": "any",
            "OPENAI_API_KEY": "any",
        }


class Shell:
    """Runs a page's commands one after the other. Servers run on until its end."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._exports: list[str] = []
        self._servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self._servers:
            os.killpg(server.pid, signal.SIGTERM)
        for server in self._servers:
            server.wait(WAIT_S)

    def run(self, command: str) -> tuple[int, list[str]]:
        """Exit status and what was printed. A server runs on once it listens; an `export` holds from here on."""
        command = self._place.here(command)
        if command.startswith("export "):
            self._exports.append(command)
            return 0, []
        if _SERVER.search(command):
            return 0, self._serve(re.sub(r"\s*&?\s*(?:#.*)?$", "", command))
        done = subprocess.run(
            ["bash", "-c", "\n".join([*self._exports, command])],
            cwd=self._place.cwd,
            env=self._place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout.decode().splitlines()

    def _serve(self, command: str) -> list[str]:
        said = self._place.folder / f"server{len(self._servers)}.txt"
        with said.open("wb") as file:
            server = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"],
                cwd=self._place.cwd,
                env=self._place.environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._servers.append(server)
        end = time.monotonic() + WAIT_S
        while "http://127.0.0.1:" not in said.read_text("utf-8"):  # both say where, as soon as they listen
            assert server.poll() is None and time.monotonic() < end, f"{command}: {said.read_text('utf-8')}"
            time.sleep(0.05)
        return said.read_text("utf-8").splitlines()


def normal(line: str, *, figures: bool) -> str:
    """A line as it is compared: without times, runs of blanks as one and, where `figures` differ, without these."""
    line = " ".join(_TIMES.sub("N ", line).split())
    line = _LOGGED.sub("", line)
    return line if figures else re.sub(r"[0-9a-f]{12}|[-+]?[\d][\d.,]*", "N", line)


def unprinted(shown: list[str], printed: list[str]) -> str | None:
    """The first shown line that is not among those printed behind the one before it."""
    rest = iter(printed)
    return next((line for line in shown if line not in rest), None)


def run_commands(page: Path, place: Place) -> None:
    """Raises AssertionError for the first that ends otherwise, or prints something else, than the page shows."""
    with Shell(place) as shell:
        for block in blocks(page):
            if block.language == "python" or block.says("not run"):
                continue
            for command, shown in block.commands():
                status, printed = shell.run(command)
                where = f"{page.name}:{block.line}: $ {command}"
                expected = int(block.said["status"]) if block.said and block.says("exit") else 0
                assert status == expected, f"{where}\n" + "\n".join(printed)
                figures = not block.says("figures differ")
                lines, found = ([normal(place.here(x), figures=figures) for x in each] for each in (shown, printed))
                missing = unprinted(lines, found)
                assert missing is None, f"{where}\nshows {missing!r}, printed:\n" + "\n".join(printed)


def run_python(page: Path, place: Place) -> None:
    """Each block is compiled under its page's name and line, so that a traceback says where it stands. Where a line's
    comment begins with a value in quotation marks, the line must have it.
    """
    program = [f"exec(compile({GIVEN!r}, 'given', 'exec'))"]
    for block in blocks(page):
        if block.language == "python" and not block.says("not run"):
            where = f"{page.name}, block of line {block.line}"
            program.append(f"exec(compile({block.text!r}, {where!r}, 'exec'))")
            program += [f"assert {line['value']} == {line['said']}, {where!r}" for line in _VALUE.finditer(block.text)]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        cwd=place.cwd,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


Run = Callable[[Path, Place], None]
RUNS: list[tuple[Run, Path]] = [
    (run, page)
    for run, languages in ((run_commands, ("console", "sh")), (run_python, ("python",)))
    for page in PAGES
    if any(block.language in languages and not block.says("not run") for block in blocks(page))
]


def name_of(run: Run, page: Path) -> str:
    return f"{run.__name__}-{page.relative_to(ROOT).as_posix()}"


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """The runs that were asked for, on all cores: most of their time Python starts, and each has its own folder."""
    cache = tmp_path_factory.mktemp("cache")
    asked = {item.callspec.id for item in request.session.items if getattr(item, "callspec", None)}

    def outcome(run: Run, page: Path, folder: Path) -> None:
        with Upstream() as upstream:
            run(page, Place(folder, upstream.url, cache))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            name_of(run, page): pool.submit(outcome, run, page, tmp_path_factory.mktemp("page"))
            for run, page in RUNS
            if name_of(run, page) in asked
        }


@pytest.mark.parametrize("name", [name_of(run, page) for run, page in RUNS], ids=str)
def test_what_the_page_shows_is_what_happens(name: str, outcomes: dict[str, Future[None]]) -> None:
    outcomes[name].result()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_of_the_page_are_settings(page: Path, tmp_path: Path) -> None:
    for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        file = tmp_path / "tierwise.toml"
        file.write_text(text, "utf-8")
        found = settings.load(file, {})
        Rules(found.rules)
        catalog.configured(found.fleets, found.models)


def test_few_blocks_are_not_run() -> None:
    """A block is left out for what a test cannot have, never because it fails."""
    left_out = [
        f"{page.name}:{b.line}: {b.said and b.said['why']}" for page in PAGES for b in blocks(page) if b.says("not run")
    ]
    assert len(left_out) <= MAX_NOT_RUN, left_out


def test_every_fenced_block_is_read() -> None:
    """No block escapes by its language's name or its indent."""
    for page in PAGES:
        fences = re.findall(r"^ *```(\w+) *$", page.read_text("utf-8"), re.M)
        assert set(fences) <= {"console", "sh", "python", "toml", "text"}, page
        assert len(blocks(page)) == sum(name in ("console", "sh", "python") for name in fences), page
        assert [b.line for b in blocks(page) if b.language != "python" and not list(b.commands())] == [], page
