"""The `tierwise` command's group: the commands of the package, and those of entry points, which may need an extra."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from router.errors import ClientError

_OURS = ("router", "training")


class Commands(click.Group):
    """The commands here, and those of entry points `tierwise.commands`: this package's that need an extra, and others'.

    The entry points are read only for a command that is not here and for the list of commands: it takes 30 ms.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, sorted."""
        return sorted({*self.commands, *entry_points(group="tierwise.commands").names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, None for an unknown one."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        point = _entry_point(cmd_name)
        if point is None:
            return None
        try:
            command: click.Command = point.load()
        except ImportError as exc:
            return _unusable(cmd_name, _lacks(point, exc))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was asked for; a UsageError for an unknown one names the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            if not (near := get_close_matches(args[0], self.list_commands(ctx), 1)):
                raise
            raise click.UsageError(f"{exc.message} Did you mean {near[0]!r}?", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a library that it imports only now and that is not installed is a ClientError."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            point = _entry_point(ctx.invoked_subcommand or "")
            if point is None or (exc.name or "").partition(".")[0] in _OURS:
                raise
            raise ClientError(_lacks(point, exc)) from exc


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group="tierwise.commands", name=name)), None)


def _lacks(point: EntryPoint, exc: ImportError) -> str:
    needs = f"{point.name} needs {exc.name or exc}"
    if point.module.partition(".")[0] not in _OURS:
        return needs
    extra = "gateway" if point.module.startswith("router.gateway") else "train"
    return f"{needs}; pip install 'tierwise[{extra}]'"


def _unusable(name: str, why: str) -> click.Command:
    """A command that says what it lacks, so that the others and the list of commands work without it."""

    def say(arguments: tuple[str, ...]) -> None:  # noqa: ARG001
        raise ClientError(why)

    argument = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    settings_ = {"ignore_unknown_options": True, "help_option_names": []}
    return click.Command(name, settings_, say, [argument], short_help=f"({why})", add_help_option=False)
