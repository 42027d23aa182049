"""Retrieves the jars Spark needs beyond its own: `python -m pipelines.jars [--conf delta ...] [--dir .jars]`."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from pipelines.config import CONFIG_DIR, PROJECT_ROOT
from pipelines.errors import LakehouseError
from pipelines.lock_file import held

IVY_FILE = CONFIG_DIR / "spark-jars.ivy.xml"
JAVA_DIR = PROJECT_ROOT / "java"
DEFAULT_DIR = PROJECT_ROOT / ".jars"
_STAMP = "complete.json"
_TIMEOUT_SECONDS = 900
# The set that our own Java goes with, and the one that has what it is compiled with and against.
_S3 = "s3"
_COMPILER = "compiler"
_OWN_JAR = "lakehouse-log-store.jar"


class JarsError(LakehouseError):
    """The jars are missing or could not be retrieved; the message names the fix."""


def known_confs(ivy_file: Path = IVY_FILE) -> tuple[str, ...]:
    """Return the names of the jar sets that can be retrieved."""
    # The file is our own, never input.
    root = ET.parse(ivy_file).getroot()  # noqa: S314
    return tuple(conf.attrib["name"] for conf in root.iter("conf") if conf.get("visibility") != "private")


def jar_paths(confs: Sequence[str], directory: Path = DEFAULT_DIR) -> list[Path]:
    """Return the jars of some sets, each file name once (the sets overlap).

    Raises:
        JarsError: a set has not been retrieved.
    """
    found: dict[str, Path] = {}
    for conf in confs:
        if not _is_complete(directory / conf):
            setup = "`make setup` or " if conf == "delta" else ""
            raise JarsError(
                f"the {conf} jars are not in {directory}; run {setup}`python -m pipelines.jars --conf {conf}`"
            )
        for jar in sorted((directory / conf).glob("*.jar")):
            found.setdefault(jar.name, jar)
    return list(found.values())


def retrieve(confs: Sequence[str] = ("delta",), directory: Path = DEFAULT_DIR) -> list[str]:
    """Retrieve the given jar sets; what is already complete is left alone, without starting a JVM.

    Returns:
        The sets that had to be retrieved.

    Raises:
        JarsError: an unknown set, no Java, no network, or no room; names the fix.
    """
    unknown = sorted(set(confs) - set(known_confs()))
    if unknown:
        raise JarsError(f"no jar set called {', '.join(unknown)}; known: {', '.join(known_confs())}")
    if all(_is_complete(directory / conf) for conf in confs):
        return []
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory / ".lock"):
        missing = [conf for conf in confs if not _is_complete(directory / conf)]
        if missing:
            _retrieve(missing, directory)
        return missing


def _retrieve(confs: Sequence[str], directory: Path) -> None:
    """Fetch beside the final place and rename: a killed download is never taken for a complete one."""
    for leftover in directory.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
    try:
        _run_ivy([*confs, _COMPILER] if _S3 in confs else confs, partial)
        if _S3 in confs:
            _compile(partial / _COMPILER, partial / _S3)
        for conf in confs:
            _finish(partial / conf, directory / conf)
    except OSError as error:
        raise JarsError(f"cannot write jars to {directory}: {error.strerror}; free some room or give --dir") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_ivy(confs: Sequence[str], target: Path) -> None:
    command = [java_command(), "-jar", str(_ivy_jar()), "-warn", "-ivy", str(IVY_FILE), "-types", "jar", "bundle"]
    command += ["-confs", *confs, "-retrieve", f"{target}/[conf]/[artifact]-[revision].[ext]"]
    try:
        # Arguments are ours and checked; nothing goes through a shell.
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise JarsError("retrieving jars took over 15 minutes; check the network and run it again") from None
    # Ivy ends with 0 on some failures, so what landed decides.
    empty = [conf for conf in confs if not any((target / conf).glob("*.jar"))]
    if done.returncode or empty:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        problem = next((line for line in lines if "not found" in line or "Exception" in line), "no details")
        raise JarsError(
            f"could not retrieve the {', '.join(confs)} jars: {problem}. Check the network (a proxy goes into "
            "JAVA_TOOL_OPTIONS, a mirror into ~/.ivy2/ivysettings.xml) and run it again; what was fetched is kept"
        )


def _compile(compiler: Path, target: Path) -> None:
    """Compile our own Java into a jar of the target; the compiler needs no more than a Java runtime."""
    classes = compiler / "classes"
    folders = (compiler, _ivy_jar().parent)
    class_path = os.pathsep.join(str(jar) for folder in folders for jar in sorted(folder.glob("*.jar")))
    command = [java_command(), "-cp", class_path, "org.eclipse.jdt.internal.compiler.batch.Main"]
    command += ["-17", "-nowarn", "-proc:none", "-cp", class_path, "-d", str(classes), str(JAVA_DIR)]
    # Arguments are ours; nothing goes through a shell.
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603
    if done.returncode:
        raise JarsError(f"could not compile {JAVA_DIR}: {done.stdout}{done.stderr}".strip())
    with zipfile.ZipFile(target / _OWN_JAR, "w", zipfile.ZIP_DEFLATED) as jar:
        for path in sorted(classes.rglob("*.class")):
            jar.write(path, path.relative_to(classes))


def _finish(source: Path, target: Path) -> None:
    jars = {jar.name: jar.stat().st_size for jar in sorted(source.glob("*.jar"))}
    stamp = {"declaration": _declaration(source.name), "jars": jars}
    (source / _STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)


def _is_complete(folder: Path) -> bool:
    try:
        stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in stamp["jars"]}
    except (OSError, ValueError, KeyError):
        return False
    return bool(stamp["declaration"] == _declaration(folder.name) and sizes == stamp["jars"])


def _declaration(conf: str) -> str:
    sources = sorted(JAVA_DIR.rglob("*.java")) if conf == _S3 else []
    return hashlib.sha256(b"".join(path.read_bytes() for path in [IVY_FILE, *sources])).hexdigest()


def _ivy_jar() -> Path:
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise JarsError("pyspark is not installed; run `make setup`")
    found = sorted((Path(spec.origin).parent / "jars").glob("ivy-*.jar"))
    if not found:
        raise JarsError("pyspark was installed without its jars; reinstall it with `make setup`")
    return found[-1]


def java_command() -> str:
    """Return the `java` to run: that of JAVA_HOME, else the one on the PATH.

    Raises:
        JarsError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    candidate = str(Path(home) / "bin" / "java") if home else "java"
    found = shutil.which(candidate)
    if found is None:
        where = f"in JAVA_HOME ({home})" if home else "on the PATH"
        raise JarsError(
            f"no Java found {where}; install Java 17 (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 with the problem on stderr."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.jars", description="Retrieve the jars Spark needs.")
    parser.add_argument("--conf", nargs="+", default=["delta"], metavar="SET", help=f"of {', '.join(known_confs())}")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="where to (default: .jars of the project)")
    given = parser.parse_args(arguments)
    try:
        fetched = retrieve(given.conf, given.dir)
    except JarsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"jars: {', '.join(fetched)} retrieved\n" if fetched else "jars: all there\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
