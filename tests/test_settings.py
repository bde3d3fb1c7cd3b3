from __future__ import annotations

from pathlib import Path

import pytest

from router import Router, SettingsError, Tier, settings


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_defaults_without_a_file() -> None:
    assert settings.load(environ={}) == settings.Settings()


def test_file_then_environment(tmp_path: Path) -> None:
    file = write(tmp_path / "my.toml", 'fleet = "gpt"\noperating_point = "quality"\n')
    loaded = settings.load(environ={"TIERWISE_CONFIG": str(file), "TIERWISE_FLEET": "gemini"})
    assert (loaded.fleet, loaded.operating_point) == ("gemini", "quality")


def test_file_in_the_working_directory(tmp_path: Path) -> None:
    write(tmp_path / "tierwise.toml", 'fleet = "mine"\n[fleets.mine]\nsimple = "gpt-6-luna"\ncomplex = "gpt-6.2-sol"\n')
    router = Router.load()
    assert [model.id for model in router.fleet.models.values()] == ["gpt-6-luna", "gpt-6.2-sol"]
    assert router.decide("hi").tier in (Tier.SIMPLE, Tier.COMPLEX)


def test_models_of_your_own(tmp_path: Path) -> None:
    text = '[models.llama]\nbase_url = "http://localhost:8000/v1"\ncontext_tokens = 8192\n'
    loaded = settings.load(write(tmp_path / "my.toml", text), environ={})
    assert loaded.models == {"llama": {"base_url": "http://localhost:8000/v1", "context_tokens": 8192}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('fleat = "gpt"', "unknown key 'fleat'; did you mean 'fleet'"),
        ("xyz = 1", "unknown key 'xyz'; known:"),
        ("fleet = 5", r"\$\.fleet"),
        ('[fleets.mine]\ntiny = "gpt-6-luna"', "tiny"),
        ("fleet = [", "my.toml"),
        ('[operating_points.mine]\ntarget = "x"', "my.toml: .*required field `thresholds`"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.load(write(tmp_path / "my.toml", text), environ={})


def test_named_file_must_exist() -> None:
    with pytest.raises(SettingsError, match=r"no settings file 'gone\.toml'"):
        settings.load(environ={"TIERWISE_CONFIG": "gone.toml"})
