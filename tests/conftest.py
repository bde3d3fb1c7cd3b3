"""What the tests share: the shipped router, a clock to turn by hand, and the embedded upstream."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from router import Router, Settings
from router.classifier import artifact
from router.offline import Upstream

ROOT = Path(__file__).parent.parent


class Clock:
    """Seconds since the epoch, moved by the test."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def artifact_that_says(tier: str, folder: Path) -> Path:
    """A copy of the shipped artifact at `folder` whose thresholds send all to one tier."""
    shutil.copytree(artifact.find(), folder, ignore=shutil.ignore_patterns("training"))
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    levels = {"simple": (0, 0), "moderate": (1, 0), "complex": (1, 1)}[tier]
    for point in manifest["operating_points"].values():
        point["thresholds"] = dict(zip(("simple", "moderate"), levels, strict=True))
    (folder / "manifest.json").write_bytes(msgspec.json.encode({**manifest, "name": folder.name}))
    return folder


@pytest.fixture(scope="session")
def shipped() -> Router:
    """The shipped router, untouched by whatever settings this machine has."""
    return Router.load(config=Settings())


@pytest.fixture
def clock() -> Clock:
    """2026-11-22 12:00 UTC."""
    return Clock(1795348800.0)


@pytest.fixture
def upstream(clock: Clock) -> Iterator[Upstream]:
    with Upstream(clock=clock) as running:
        yield running


@pytest.fixture
def router(clock: Clock) -> Router:
    """A router of its own, on the test's clock."""
    return Router.load(config=Settings(), clock=clock)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may see a key or a settings file of the machine it runs on."""
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "TIERWISE_CONFIG", "TIERWISE_FLEET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
