"""The settings in force, without secrets, each beside the layer that changed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, cast

import click
import yaml
from pydantic import SecretStr

from pipelines.cli.render import show_json
from pipelines.config import CONFIG_DIR, Settings, load_settings

_ENVIRONMENT = "the environment"
_INDENT = "  "


def show_settings(config_file: Path | None, *, as_json: bool) -> None:
    """Print the settings as YAML with remarks, or as JSON."""
    path = config_file or CONFIG_DIR / "config.yaml"
    files = [each for each in (path, path.with_name(f"{path.stem}.local{path.suffix}")) if each.is_file()]
    values = _visible(load_settings(config_file))
    origins = _origins(values, _visible(load_settings(config_file, environ={})), _visible(Settings()))
    if as_json:
        sources = {".".join(key): origin for key, origin in origins.items()}
        show_json({"files": [str(each) for each in files], "settings": values, "changed_by": sources})
        return
    click.echo(f"# read from {', '.join(map(str, files))}" if files else "# no settings file: all defaults")
    for line in _lines(values, origins):
        click.echo(line)


def _visible(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values, with *** for a secret that is set."""
    return cast("dict[str, Any]", _hidden(settings.model_dump()))


def _hidden(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _hidden(part) for name, part in value.items()}
    if isinstance(value, Enum):
        return value.value
    return "***" if isinstance(value, SecretStr) else value


def _origins(
    values: Mapping[str, Any], in_files: Mapping[str, Any], defaults: Mapping[str, Any], at: tuple[str, ...] = ()
) -> dict[tuple[str, ...], str]:
    """Return which layer changed a key, for every key that is not at its default."""
    found: dict[tuple[str, ...], str] = {}
    for name, value in values.items():
        key, filed, default = (*at, name), in_files.get(name), defaults.get(name)
        if isinstance(value, Mapping):
            found |= _origins(value, filed or {}, default or {}, key)
        elif value != filed:
            found[key] = _ENVIRONMENT
        elif value != default:
            found[key] = "a settings file"
    return found


def _lines(
    values: Mapping[str, Any], origins: Mapping[tuple[str, ...], str], at: tuple[str, ...] = ()
) -> Iterator[str]:
    for name, value in values.items():
        key, indent = (*at, name), _INDENT * len(at)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, origins, key)
        else:
            remark = f"  # from {origins[key]}" if key in origins else ""
            yield f"{indent}{name}: {_scalar(value)}{remark}"


def _scalar(value: object) -> str:
    """Return one value as YAML writes it on a line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
