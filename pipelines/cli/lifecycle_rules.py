"""The lifecycle rules of a lake in S3, as they are and as they should be."""

from __future__ import annotations

from pathlib import Path

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.render import Heading, counted, say, show_json, show_table
from pipelines.config import load_settings
from pipelines.storage.stores.lifecycle import Plan, Rule, apply_lifecycle


def show_lifecycle(lake: str | None, *, apply: bool, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Print the rules, and set them if asked to."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    plan = chosen.manager.lifecycle()
    if apply:
        apply_lifecycle(plan)
    if as_json:
        show_json({**chosen.as_dict(), **_document(plan, applied=apply)})
        return
    chosen.show()
    say()
    headings = [Heading("table"), Heading("objects"), Heading("classes"), Heading("rule")]
    show_table(
        headings, [[rule.table, f"{rule.prefix}…", _classes(rule), state] for rule, state in _states(plan, apply)]
    )
    kept = counted(len(plan.others), "rules of others")
    say(f"\nBucket {plan.bucket}: {kept} stay as they are; logs change no class.")
    if not apply and not plan.is_set:
        say("Nothing was changed; --apply sets the rules.", "yellow")


def _states(plan: Plan, applied: bool) -> list[tuple[Rule, str]]:
    present = {rule.table: rule for rule in plan.present}
    states = [(rule, _state(rule, present.get(rule.table), applied)) for rule in plan.wanted]
    wanted = {rule.table for rule in plan.wanted}
    gone = "removed" if applied else "to be removed"
    return states + [(rule, gone) for rule in plan.present if rule.table not in wanted]


def _state(wanted: Rule, present: Rule | None, applied: bool) -> str:
    if wanted == present:
        return "set"
    if applied:
        return "set now"
    return "to be set" if present is None else f"to be set; now {_classes(present)}"


def _classes(rule: Rule) -> str:
    steps = [f"{name} after {days} days" for days, name in rule.transitions]
    return ", ".join(steps) if steps else "none"


def _document(plan: Plan, *, applied: bool) -> dict[str, object]:
    return {
        "bucket": plan.bucket,
        "wanted": [_rule(rule) for rule in plan.wanted],
        "present": [_rule(rule) for rule in plan.present],
        "others": len(plan.others),
        "is_set": applied or plan.is_set,
        "applied": applied and not plan.is_set,
    }


def _rule(rule: Rule) -> dict[str, object]:
    transitions = [{"days": days, "storage_class": name} for days, name in rule.transitions]
    return {"id": rule.id, "table": rule.table, "prefix": rule.prefix, "transitions": transitions}
