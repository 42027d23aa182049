"""The pages say what the program does: commands, options, settings, providers, examples, links."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from pipelines import docs
from pipelines.cli import main
from pipelines.cli.dbt_words import check_command
from pipelines.config import PROJECT_ROOT, Settings
from pipelines.contracts import load_contracts
from pipelines.sources.registry import SOURCES
from pipelines.streaming.schemas import message_columns

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (PROJECT_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STREAMING = (PROJECT_ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
HERE = Path(__file__)


def tracked_files() -> list[Path]:
    """Return what git tracks or would add, as far as it exists."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT_ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.split("\0") if name and (path := PROJECT_ROOT / name).is_file()]


def pages() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def fenced(kind: str, page: str) -> list[str]:
    """Return the blocks of a kind, as bash or python."""
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def table_under(heading: str, page: str = README) -> list[list[str]]:
    """Return the rows of the first table after a heading of a page, by default the README."""
    section = page.partition(f"\n## {heading}\n")[2]
    lines = next(block for block in section.split("\n\n") if block.startswith("|")).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None, f"no command {name}"
    return found


# ---- the data dictionaries


def test_the_data_dictionaries_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main(["--check"]) == 0, "run python -m pipelines.docs"
    assert capsys.readouterr().err == ""


def test_a_stale_data_dictionary_is_noticed_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "pages", lambda: {"one.md": "new", "other.md": "as it is"})
    (tmp_path / "other.md").write_text("as it is", encoding="utf-8")
    given = ["--folder", str(tmp_path)]
    assert docs.main(["--check", *given]) == 1
    (tmp_path / "one.md").write_text("old", encoding="utf-8")
    assert docs.main(["--check", *given]) == 1
    assert "one.md is stale" in (said := capsys.readouterr().err)
    assert "other.md" not in said
    assert docs.main(given) == 0
    assert docs.main(["--check", *given]) == 0


def test_every_table_and_column_of_the_models_is_in_their_dictionary() -> None:
    """The models' own files are the oracle."""
    page = docs.MODELS_DICTIONARY.read_text("utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    views = {path.stem for path in (PROJECT_ROOT / "dbt" / "models").rglob("*.sql") if "'view'" in path.read_text()}
    found = {}
    for layer in ("silver", "gold"):
        for path in (PROJECT_ROOT / "dbt" / "models" / layer).rglob("*.yml"):
            found |= {each["name"]: each for each in yaml.safe_load(path.read_text("utf-8")).get("models", [])}
    tables = found.keys() - views
    assert sections.keys() - {"Lineage"} == tables
    picture = re.search(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert picture
    for name in tables:
        rows = re.findall(r"^\| `(\w+)` \|", sections[name], re.MULTILINE)
        assert rows == [column["name"] for column in found[name]["columns"]], name
        assert f"{name}[{name}]" in picture[1]
        assert f"--> {name}\n" in picture[1]


def test_every_column_and_rule_is_in_the_data_dictionary() -> None:
    sections = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", docs.DICTIONARY.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
    for path in sorted((PROJECT_ROOT / "config" / "contracts").glob("*.yaml")):
        contract = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = [line.split(" | ")[0].strip("| ") for line in sections[contract["id"]].splitlines()]
        schema = contract["schema"][0]
        wanted = [f"`{column['name']}`" for column in schema["properties"]]
        wanted += [rule["name"] for rule in schema.get("quality", [])]
        assert [row for row in rows if row in wanted] == wanted


# ---- README


def test_the_two_commands_are_targets() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert re.findall(r"^make (\w+)", fenced("bash", README)[0], re.MULTILINE) == [
        "backfill",
        "test",
    ]
    assert set(re.findall(r"`?make ([a-z][a-z0-9-]*)", README + CONTRIBUTING + STREAMING)) <= targets


def test_the_table_of_commands_has_every_command_and_option() -> None:
    rows = {code(row[0])[0]: row for row in table_under("Command line")}
    assert list(rows) == main.list_commands(click.Context(main))
    for name, row in rows.items():
        options = {option for parameter in command(name).params for option in parameter.opts if option.startswith("--")}
        assert set(code(row[2])) == options - {"--verbose"}
        assert code(row[3])[0].startswith(f"lakehouse {name}")


def lakehouse_lines() -> Iterator[str]:
    """Yield the command lines of all pages, from blocks and from between words."""
    for page in pages():
        for line in re.findall(r"`(lakehouse [^`]+)`", prose(page)):
            yield " ".join(line.split())
        for block in fenced("bash", page.read_text(encoding="utf-8")):
            yield from (line for line in block.splitlines() if line.startswith("lakehouse "))


def test_every_printed_command_line_is_understood() -> None:
    lines = [line for line in lakehouse_lines() if not line.startswith("lakehouse COMMAND")]
    assert len(lines) > 15
    for line in lines:
        _, name, *arguments = shlex.split(line, comments=True)
        found = command(name)
        if arguments:
            context = found.make_context(name, arguments, parent=click.Context(main))
            if name == "dbt":
                with context:
                    check_command(context.params["arguments"])


def test_the_exit_codes_are_those_of_the_program() -> None:
    from pipelines.cli import failures

    said = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    codes = (failures.DONE, failures.FAILED, failures.WRONG_ARGUMENTS, failures.INTERRUPTED)
    assert [int(number) for number in said] == list(codes)


def test_the_tables_of_settings_and_providers_are_right() -> None:
    defaults = Settings().model_dump()
    for key, default, _ in table_under("Configuration"):
        value = defaults
        for part in code(key)[0].split("."):
            value = value[part]
        assert yaml.safe_load(code(default)[0]) == value, key
    rows = {code(row[0])[0]: row for row in table_under("Providers")}
    assert list(rows) == list(SOURCES)
    for name, row in rows.items():
        section = defaults["providers"][name]
        assert row[4] == (f"{section['requests_per_minute']:.0f}" if section["base_url"] else "-")
        assert bool(code(row[3])) == any(field in section for field in ("api_key", "api_token"))


def test_the_page_of_streaming_has_every_setting_and_its_default() -> None:
    rows = {code(row[0])[0]: row[1] for row in table_under("Settings", STREAMING)}
    defaults = Settings().streaming.model_dump()
    assert list(rows) == list(defaults)
    assert rows.pop("topics") == "seven topics"
    assert len(defaults["topics"]) == 7
    for name, default in rows.items():
        assert yaml.safe_load(code(default)[0]) == defaults[name], name


def test_the_message_of_the_page_of_streaming_is_one() -> None:
    message = json.loads(fenced("json", STREAMING)[0])
    columns = message_columns(load_contracts()["raw_market_ticks"])
    assert list(message) == [column.name for column in columns]


@pytest.mark.spark
def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: object) -> None:
    monkeypatch.chdir(tmp_path)
    example = fenced("python", README)[0]
    said: list[str] = []
    found: dict[str, object] = {"print": lambda *values: said.append(" ".join(map(str, values)))}
    exec(compile(example, "README.md", "exec"), found)
    assert said == re.findall(r"print\(.*\)  # (.*)", example)
    assert [len(found[name]) for name in ("bars", "created", "latest", "daily")] == [24, 0, 312, 13]  # type: ignore[arg-type]


# ---- CONTRIBUTING


def test_the_contract_of_the_example_loads(tmp_path: Path) -> None:
    block = fenced("yaml", CONTRIBUTING)[0]
    (tmp_path / "funding_rates.yaml").write_text(block, encoding="utf-8")
    contract = load_contracts(tmp_path)["funding_rates"]
    assert contract.keys == ("contract", "timestamp", "provider")
    assert contract.value_columns == ("rate",)
    assert contract.partition_columns == ("partition_date",)
    assert contract.granularity("funding_rates", Settings().delta_lake) == "year"
    assert [(rule.reason, rule.check_constraint) for rule in contract.row_rules] == [("rate out of range", True)]


# ---- all pages and files


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_resolve() -> None:
    broken = []
    for page in pages():
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(PROJECT_ROOT)}: {link}")
    assert not broken


def test_mermaid_pictures_are_closed() -> None:
    for page in pages():
        for picture in fenced("mermaid", page.read_text(encoding="utf-8")):
            lines = [line.strip() for line in picture.splitlines() if line.strip()]
            assert lines[0].startswith("flowchart ")
            assert sum(line.startswith("subgraph ") for line in lines) == lines.count("end")
            named = set(re.findall(r"^(\w+)\[", "\n".join(lines), re.MULTILINE))
            used = {name for line in lines for name in re.findall(r"^(\w+) -.*> (\w+)$", line)[:1] for name in name}
            assert used == named


def test_no_file_names_a_package_index() -> None:
    """Users bring their own index and mirrors; a host written down would win over them."""
    hosts = [
        ("py", "pi.org"), ("pythonhosted", ".org"), ("maven", ".org"), ("repo.maven", ".apache"), ("ibib", "lio.org"),
        ("npmjs", "."), ("anaconda", ".org"), ("crates", ".io"), ("docker", ".io"), ("ghcr", ".io"),
        ("quay", ".io"), ("--index", "-url"), ("--extra-index", "-url"), ("--find", "-links"),
    ]  # fmt: skip
    pattern = re.compile("|".join(re.escape("".join(parts)) for parts in hosts), re.IGNORECASE)
    found = {}
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        if path != HERE and (match := pattern.search(text)):
            found[str(path.relative_to(PROJECT_ROOT))] = match[0]
    assert not found
