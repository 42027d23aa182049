"""Which providers answer at all; any answer counts, because no key is shown and nothing is asked for."""

from __future__ import annotations

import asyncio

from pipelines.config import ProviderSettings, Settings
from pipelines.errors import ConfigError, SourceError, SourceUnavailableError
from pipelines.sources.http import HttpClient, RateLimitedError

_PATIENCE_SECONDS = 3.0


def reached(settings: Settings) -> list[tuple[str, str, str]]:
    """Return (name, base address, problem or nothing) for every enabled provider with an address."""
    return asyncio.run(_all(settings))


async def _all(settings: Settings) -> list[tuple[str, str, str]]:
    sections = {
        name: section
        for name in type(settings.providers).model_fields
        if isinstance(section := getattr(settings.providers, name), ProviderSettings)
    }
    wanted = {name: section for name, section in sections.items() if section.enabled and section.base_url}
    problems = await asyncio.gather(*(_problem(name, section) for name, section in wanted.items()))
    return [(name, wanted[name].base_url, problem) for name, problem in zip(wanted, problems, strict=True)]


async def _problem(name: str, section: ProviderSettings) -> str:
    hurried = section.model_copy(update={"max_retries": 0, "timeout_seconds": _PATIENCE_SECONDS})
    try:
        client = HttpClient(name, hurried)
    except ConfigError as error:
        return str(error)
    try:
        await client.get_response("")
    except RateLimitedError:
        return ""
    except SourceUnavailableError as error:
        why = str(error).removeprefix(f"{name}: ").removesuffix(" (gave up after 1 tries)")
        return f"no answer from {section.base_url}: {why}"
    except SourceError:
        # It answered; that it wants a key or another path is no news.
        return ""
    finally:
        await client.aclose()
    return ""
