"""Lifecycle rules: S3 moves data files to cheaper storage classes as they age, and never a table's log."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError, StorageError
from pipelines.storage.creation import MARKER_TABLE
from pipelines.storage.stores.s3 import Place, client, endpoint, error_code, explained

if TYPE_CHECKING:
    from types_boto3_s3.literals import TransitionDefaultMinimumObjectSizeType, TransitionStorageClassType
    from types_boto3_s3.type_defs import LifecycleRuleOutputTypeDef, LifecycleRuleTypeDef, TransitionTypeDef

    from pipelines.config import LifecycleSettings
    from pipelines.storage.lake import Lake

ID_PREFIX = "lakehouse/"
# Data files are `part-…` and lie in folders `partition_…`; the log's folder begins otherwise.
_DATA_FILES = "part"
_NONE_SET = {"NoSuchLifecycleConfiguration"}
_UNKNOWN = {"NotImplemented", "501"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: objects of the bucket whose key begins with `prefix` change class after that many days."""

    table: str
    prefix: str
    transitions: tuple[tuple[int, TransitionStorageClassType], ...]

    @property
    def id(self) -> str:
        """The rule's name in the bucket: the same for the same table, another in another lake."""
        return f"{ID_PREFIX}{hashlib.sha256(self.prefix.encode()).hexdigest()[:16]}/{self.table}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bucket's rules are and what they should be: those of one lake, in between those of others."""

    bucket: str
    wanted: tuple[Rule, ...]
    present: tuple[Rule, ...]
    others: tuple[LifecycleRuleOutputTypeDef, ...]
    minimum_size: TransitionDefaultMinimumObjectSizeType | None

    @property
    def is_set(self) -> bool:
        """Whether there is nothing to change."""
        return set(self.wanted) == set(self.present)


def plan_lifecycle(lake: Lake, settings: LifecycleSettings) -> Plan:
    """Compare the rules that the lake's tables should have with those of the bucket; changes nothing.

    The log of coverage gets none: each run reads all of it.

    Raises:
        ConfigError: the lake is not in S3.
        StorageError: the bucket's rules cannot be read; names the fix.
    """
    if not lake.root.is_s3:
        raise ConfigError(
            f"{lake.root.address} is not in S3, which alone moves files by their age; "
            "set delta_lake.storage_path, or give --lake s3://bucket/prefix"
        )
    place = lake.root.place
    tables = [name for name in lake.names() if name != MARKER_TABLE]
    wanted = tuple(_rule(place, name, settings) for name in tables)
    rules, minimum_size = _rules_of(place.bucket)
    ours = [rule for rule in rules if _is_of(place, rule)]
    others = tuple(rule for rule in rules if not _is_of(place, rule))
    return Plan(place.bucket, wanted, tuple(map(_understood, ours)), others, minimum_size)


def apply_lifecycle(plan: Plan) -> None:
    """Set the rules of a plan; rules of others stay as they are, and nothing is asked of S3 where all is set.

    Raises:
        StorageError: the keys may not, or the server knows no storage classes; names the fix.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

    if plan.is_set:
        return
    rules: list[LifecycleRuleTypeDef | LifecycleRuleOutputTypeDef] = [*plan.others, *map(request_of, plan.wanted)]
    doing = f"cannot set the lifecycle rules of bucket {plan.bucket}"
    with explained(plan.bucket, doing):
        try:
            _put(plan, rules)
        except ClientError as error:
            if error_code(error) not in _UNKNOWN:
                raise
            raise StorageError(f"{doing}: the server at {endpoint()} does not move objects between classes") from error


def _put(plan: Plan, rules: Sequence[LifecycleRuleTypeDef | LifecycleRuleOutputTypeDef]) -> None:
    if not rules:
        client().delete_bucket_lifecycle(Bucket=plan.bucket)
    elif plan.minimum_size is None:
        client().put_bucket_lifecycle_configuration(Bucket=plan.bucket, LifecycleConfiguration={"Rules": rules})
    else:
        client().put_bucket_lifecycle_configuration(
            Bucket=plan.bucket,
            LifecycleConfiguration={"Rules": rules},
            TransitionDefaultMinimumObjectSize=plan.minimum_size,
        )


def request_of(rule: Rule) -> LifecycleRuleTypeDef:
    """Return a rule as S3 takes it."""
    transitions: list[TransitionTypeDef] = [{"Days": days, "StorageClass": name} for days, name in rule.transitions]
    return {"ID": rule.id, "Status": "Enabled", "Filter": {"Prefix": rule.prefix}, "Transitions": transitions}


def _rule(place: Place, table: str, settings: LifecycleSettings) -> Rule:
    warm = (settings.warm_after_days, settings.warm_class)
    cold = (settings.cold_after_days, settings.cold_class)
    return Rule(table, place.key(f"{table}/{_DATA_FILES}"), (warm, cold))


def _rules_of(
    bucket: str,
) -> tuple[list[LifecycleRuleOutputTypeDef], TransitionDefaultMinimumObjectSizeType | None]:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

    with explained(bucket, f"cannot read the lifecycle rules of bucket {bucket}"):
        try:
            found = client().get_bucket_lifecycle_configuration(Bucket=bucket)
        except ClientError as error:
            if error_code(error) in _NONE_SET:
                return [], None
            raise
    return found.get("Rules", []), found.get("TransitionDefaultMinimumObjectSize")


def _is_of(place: Place, rule: LifecycleRuleOutputTypeDef) -> bool:
    """Say whether we made the rule for a table of this lake, by its name and by what it is for."""
    understood = _understood(rule)
    expected = place.key(f"{understood.table}/{_DATA_FILES}")
    return rule.get("ID") == understood.id and understood.prefix == expected


def _understood(rule: LifecycleRuleOutputTypeDef) -> Rule:
    table = rule.get("ID", "").rpartition("/")[2]
    steps = rule.get("Transitions", [])
    transitions = sorted((each.get("Days", 0), each["StorageClass"]) for each in steps if "StorageClass" in each)
    # One that somebody switched off is none.
    kept = tuple(transitions) if rule.get("Status") == "Enabled" else ()
    return Rule(table, rule.get("Filter", {}).get("Prefix", ""), kept)
