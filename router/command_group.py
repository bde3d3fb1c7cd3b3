"""The `tierwise` command's group: the commands of the package, and those of entry points, which may need an extra."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from router.errors import ClientError


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
        for point in entry_points(group="tierwise.commands", name=cmd_name):
            try:
                command: click.Command = point.load()
            except ImportError as exc:
                return _unusable(cmd_name, _lacks(cmd_name, point, exc))
            return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a library that it imports only now and that is not installed is a ClientError."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            points = entry_points(group="tierwise.commands", name=ctx.invoked_subcommand or "")
            if not points or (exc.name or "").partition(".")[0] in ("router", "training"):
                raise
            point = next(iter(points))
            raise ClientError(_lacks(point.name, point, exc)) from exc


def _lacks(name: str, point: EntryPoint, exc: ImportError) -> str:
    extra = "gateway" if point.module.startswith("router.gateway") else "train"
    return f"{name} needs {exc.name or exc}; pip install 'tierwise[{extra}]'"


def _unusable(name: str, why: str) -> click.Command:
    """A command that says what it lacks, so that the others and the list of commands work without it."""

    def say(arguments: tuple[str, ...]) -> None:  # noqa: ARG001
        raise ClientError(why)

    argument = click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)
    settings_ = {"ignore_unknown_options": True, "help_option_names": []}
    return click.Command(name, settings_, say, [argument], short_help=f"({why})", add_help_option=False)
