"""`tierwise catalog list` and `show`: the catalog in force, the settings' part of it too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.catalog_commands import catalog
from router.errors import CatalogError

SETTINGS = """
[models.our-opus]
like = "claude-opus-5-5"
discount = 0.5
base_url = "https://claude.internal.example"

[fleets.mine]
complex = "our-opus"
"""


def run(*args: str) -> str:
    result = CliRunner().invoke(catalog, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text(SETTINGS)
    monkeypatch.setenv("TIERWISE_CONFIG", str(tmp_path / "mine.toml"))


def test_list_has_each_model_once_with_its_price_today() -> None:
    rows = {row["id"]: row for row in json.loads(run("list", "--json"))}
    assert rows["claude-haiku-4-5"]["usd_per_mtok"]["cache_write_long"] == "2"
    figures = {name: float(usd) for name, usd in rows["our-opus"]["usd_per_mtok"].items()}
    assert figures == {
        "input": 2,
        "cache_read": 0.1,
        "cache_write_short": 2.5,
        "cache_write_long": 4,
        "output": 10,
    }
    assert rows["gpt-5.4-nano"]["retires"] == "2027-04-01"
    lines = run("list").splitlines()
    assert len(lines) == len(rows) + 1
    assert "  claude-haiku-4-5        anthropic             200,000        1        5      0.1" in lines
    assert {row["provider"] for row in json.loads(run("list", "--provider", "gemini", "--json"))} == {"gemini"}


def test_list_of_an_unknown_provider_names_the_known_ones() -> None:
    result = CliRunner().invoke(catalog, ["list", "--provider", "claude"])
    assert result.exit_code == 2
    assert "anthropic, openai, gemini" in result.output


def test_show_says_all_of_one_model() -> None:
    lines = run("show", "claude-opus-4-8").splitlines()
    assert "  speed         fast: x2 until 2026-11-30" in lines
    assert "  geo           us: x1.1" in lines
    assert "  batch         x0.5" in lines
    assert "  calls         web_search: 10 USD per thousand" in lines
    lines = run("show", "gpt-5.5").splitlines()
    assert "  service_tier  priority: x2.5 up to 272,000 input tokens" in lines
    assert "  price         input 10, cache_read 1, output 45 above 272,000 input tokens" in lines
    lines = run("show", "our-opus").splitlines()
    assert "  price         input 2, cache_read 0.1, cache_write_short 2.5, cache_write_long 4, output 10" in lines
    assert "  address       https://claude.internal.example" in lines
    assert "  fleets        mine (complex)" in lines
    assert lines[-1] == "  source        settings"


def test_show_takes_aliases_and_gives_json() -> None:
    found = json.loads(run("show", "claude-haiku-4-5-20251001", "--json"))
    assert (found["id"], found["prices"][0]["cache_read"]) == ("claude-haiku-4-5", "0.10")
    assert found["modifiers"]["calls"] == {"web_search": "10", "web_fetch": "0"}
    assert found["fleets"] == {"claude": "simple"}


def test_show_suggests_the_nearest_name() -> None:
    with pytest.raises(CatalogError, match=r"did you mean 'gpt-6.1-sol'"):
        run("show", "gpt-6.1-sun")
