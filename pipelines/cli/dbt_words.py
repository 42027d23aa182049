"""What is said to dbt, checked before anything is started for it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import click
import yaml

from pipelines.errors import ConfigError
from pipelines.transform.runner import PROJECT, project_variables

# The lakehouse sets this one itself.
_OWN = "schema_suffix"


def check_command(arguments: Sequence[str]) -> list[str]:
    """Read a command line as dbt will; one that asks for help or the version is answered here.

    Returns:
        The same line with the command in front of dbt's general options, which it takes as well.

    Raises:
        UsageError: dbt does not know such a command or option, or misses one; with dbt's own message.
        Exit: dbt has printed its help or its version.
    """
    from dbt.cli.main import cli

    # dbt looks for its profiles where it is called, and wants them to be there even to read a line.
    known = {"profiles_dir": str(PROJECT), "project_dir": str(PROJECT)}
    command: click.Command = cli
    name, words, context = "dbt", list(arguments) or ["--help"], click.get_current_context().parent
    ordered: list[str] = []
    while True:
        context = command.make_context(name, list(words), parent=context, default_map=known)
        if not isinstance(command, click.Group):
            return [*ordered, *words]
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        ordered = [*ordered, *rest[:1], *words[: len(words) - len(rest)]]
        found, chosen, words = command.resolve_command(context, rest)
        if found is None or chosen is None:
            raise click.UsageError(f"no command {rest[0]!r}", context)
        name, command = found, chosen


def check_variables(text: str) -> dict[str, Any]:
    """Return dbt variables given as YAML.

    Raises:
        ConfigError: it is not a YAML mapping, or the project has no such variable; names the nearest.
    """
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        given = None
    if not isinstance(given, dict):
        raise ConfigError(f"--vars takes a YAML mapping, as '{{risk_free_rate: 0.04}}', not {text!r}")
    names = [name for name in project_variables() if name != _OWN]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
            raise ConfigError(f"--vars: the dbt project has no variable {name}; {hint}")
    return given
