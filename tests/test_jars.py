"""Jars: nothing is done twice, nothing half done is taken for done, errors name the fix."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pyspark
import pytest

from pipelines import jars


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """A `java` that notes its calls and puts one jar where Ivy was told to, or fails when told to."""
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    calls = tmp_path / "calls"
    script = (
        f"#!{sys.executable}\nimport pathlib, sys, os\n"
        f"pathlib.Path({str(calls)!r}).open('a').write('x')\n"
        "if os.environ.get('IVY_FAILS'): sys.exit('UNRESOLVED DEPENDENCY: not found')\n"
        "pattern = sys.argv[sys.argv.index('-retrieve') + 1]\n"
        "confs = sys.argv[sys.argv.index('-confs') + 1 : sys.argv.index('-retrieve')]\n"
        "for conf in confs:\n"
        "    path = pathlib.Path(pattern.split('[conf]')[0]) / conf / 'some-1.jar'\n"
        "    path.parent.mkdir(parents=True, exist_ok=True); path.write_bytes(b'jar')\n"
    )
    (home / "bin" / "java").write_text(script)
    (home / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(home))
    return calls


def test_second_call_starts_no_jvm(tmp_path, fake_java, capsys):
    target = tmp_path / "jars"
    assert jars.main(["--conf", "delta", "--dir", str(target)]) == 0
    assert jars.main(["--conf", "delta", "--dir", str(target)]) == 0
    assert fake_java.read_text() == "x"
    assert "all there" in capsys.readouterr().out
    assert [path.name for path in jars.jar_paths(["delta"], target)] == ["some-1.jar"]
    assert jars.retrieve(["delta", "kafka"], target) == ["kafka"]


@pytest.mark.parametrize("damage", ["stamp", "jar", "declaration"])
def test_what_is_not_whole_is_retrieved_again(tmp_path, fake_java, damage):
    target = tmp_path / "jars"
    jars.retrieve(["delta"], target)
    stamp = target / "delta" / "complete.json"
    if damage == "stamp":
        stamp.unlink()
    elif damage == "jar":
        (target / "delta" / "some-1.jar").write_bytes(b"j")
    else:
        stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"declaration": "old"}))
    with pytest.raises(jars.JarsError, match="make setup"):
        jars.jar_paths(["delta"], target)
    assert jars.retrieve(["delta"], target) == ["delta"]
    assert jars.jar_paths(["delta"], target)


def test_failures_name_the_fix_and_leave_nothing(tmp_path, fake_java, monkeypatch, capsys):
    monkeypatch.setenv("IVY_FAILS", "1")
    assert jars.main(["--dir", str(tmp_path / "jars")]) == 1
    assert "Check the network" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "jars").iterdir()] == [".lock"]


def test_missing_java_and_unknown_set(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(jars.JarsError, match="install Java 17"):
        jars.retrieve(["delta"], tmp_path / "jars")
    with pytest.raises(jars.JarsError, match="known: delta, kafka, s3, postgres, broker"):
        jars.retrieve(["delt"], tmp_path / "jars")


def test_our_own_java_is_compiled_anew_when_it_changed(tmp_path, monkeypatch):
    source = tmp_path / "java" / "lakehouse" / "Hello.java"
    source.parent.mkdir(parents=True)
    source.write_text("package lakehouse; public class Hello extends io.delta.storage.HDFSLogStore { }")
    monkeypatch.setattr(jars, "JAVA_DIR", tmp_path / "java")
    target = tmp_path / "jars"
    with pytest.raises(jars.JarsError, match=r"(?s)could not compile .*Implicit super constructor"):
        jars.retrieve(["s3"], target)
    source.write_text("package lakehouse; public class Hello { }")
    assert jars.retrieve(["s3"], target) == ["s3"]
    own = next(path for path in jars.jar_paths(["s3"], target) if path.name.startswith("lakehouse-"))
    assert zipfile.ZipFile(own).namelist() == ["lakehouse/Hello.class"]
    assert not (target / "compiler").exists()
    source.write_text("package lakehouse; public class Hello { int changed; }")
    with pytest.raises(jars.JarsError, match="--conf s3"):
        jars.jar_paths(["s3"], target)


def test_the_sets_do_not_bring_what_spark_has_in_another_version():
    """The class path has our jars first: another version of a library there would be forced upon Spark."""
    own = Path(pyspark.__file__).parent / "jars"
    shipped = {path.name.rpartition("-")[0]: path.name for path in own.glob("*.jar")}
    ours = {path.name.rpartition("-")[0]: path.name for path in jars.jar_paths(["delta", "s3", "kafka"])}
    assert {name: jar for name, jar in ours.items() if shipped.get(name, jar) != jar} == {}


def test_the_real_jars_are_there_each_once():
    names = [path.name for path in jars.jar_paths(["delta", "s3", "kafka"])]
    for wanted in ("delta-spark", "hadoop-aws", "lakehouse-log-store", "spark-sql-kafka", "spark-avro"):
        assert any(name.startswith(wanted) for name in names), wanted
    assert len(names) == len(set(names))
