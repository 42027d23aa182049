"""A click group that imports a command only when it is called for, and turns our errors into messages."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import ClassVar

import click
from typing_extensions import override

from pipelines.cli.failures import reported

ARGUMENTS = "pipelines.cli.arguments"


class LazyGroup(click.Group):
    """Commands by name, each as "module:attribute"."""

    commands_at: ClassVar[Mapping[str, str]] = {}

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order they were declared."""
        return list(self.commands_at)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is no such one."""
        if cmd_name not in self.commands_at:
            return None
        module, _, attribute = self.commands_at[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command the arguments ask for; an unknown one is told the nearest."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.commands_at:
            close = difflib.get_close_matches(name, self.commands_at, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"commands: {', '.join(self.commands_at)}"
            raise click.UsageError(f"no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep the arguments as given, so that a command can print how to run it again."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error made for users becomes its message and an exit code."""
        with reported(ctx):
            return super().invoke(ctx)
