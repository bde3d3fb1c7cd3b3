"""The example settings: all are in it, as it stands it changes nothing, and what it shows is valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner

from router import settings
from router.gateway.commands import serve
from router.gateway.serving import Serving
from router.settings import EXAMPLE, GatewaySettings, Settings, UpstreamSettings

SHOWN = re.sub(r'^#(?=[a-z_]+ = |"[^"]+" = |\[)', "", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)


def test_as_it_stands_it_changes_nothing() -> None:
    assert settings.load(EXAMPLE, {}) == Settings()


def test_what_it_shows_loads_and_is_everything(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "tierwise.toml"
    file.write_text(re.sub("^(artifact|state|database_url|redis_url|key_file) = .*$", "", SHOWN, flags=re.MULTILINE))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Serving.load(settings.load(file, {}), {})
    values = tomllib.loads(SHOWN)
    assert values.keys() == set(Settings.__struct_fields__)
    assert values["gateway"].keys() == set(GatewaySettings.__struct_fields__)
    assert values["gateway"]["upstreams"]["anthropic"].keys() == set(UpstreamSettings.__struct_fields__)
    assert msgspec.convert(values, Settings)


def test_what_it_calls_a_default_is_the_default() -> None:
    shown, default = tomllib.loads(SHOWN), Settings()
    assert shown["operating_point"] == default.operating_point
    elsewhere = ("state_dir", "database_url", "redis_url", "models", "upstreams", "hosts")
    elsewhere += ("max_connections", "max_concurrent_a_key")  # without them there is no such limit, or another one
    for name in set(GatewaySettings.__struct_fields__) - set(elsewhere):
        assert shown["gateway"][name] == getattr(default.gateway, name), name


def test_serve_prints_it() -> None:
    assert CliRunner().invoke(serve, ["--example"]).stdout == EXAMPLE.read_text("utf-8")
