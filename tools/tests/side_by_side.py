"""Runs the workspace's integration tests, several programs at a time, where `cargo test` runs one after the other: most of what they do
is to wait, and each has a test that is longer than its others.

  side_by_side.py LANES [NAME...]     LANES programs at a time; those with these names begin, since they take longest

A program's output comes in one piece when the program has ended. The status is 1 where one failed.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

SELECTION = ["cargo", "test", "--workspace", "--test", "*"]

printing = threading.Lock()


def say(text):
    with printing:
        print(text, flush=True)


def programs():
    """Builds the tests. Returns (name, folder of the package, program) of each."""
    command = [*SELECTION, "--no-run", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        sys.exit(built.returncode)
    messages = map(json.loads, built.stdout.splitlines())
    # Programs that tests start are built too, and are no tests.
    return [
        (message["target"]["name"], os.path.dirname(message["manifest_path"]), message["executable"])
        for message in messages
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]
    ]


def toolchain():
    """What rustup's cargo tells the programs that it starts, so that a compiler which they start is the same one in whatever folder."""
    if shutil.which("rustup") is None:
        return {}
    active = subprocess.run(["rustup", "show", "active-toolchain"], stdout=subprocess.PIPE, text=True, check=True)
    return {"RUSTUP_TOOLCHAIN": active.stdout.split()[0]}


def run(name, package, program, environment):
    """Runs one where cargo would, in its package's folder. Returns its status."""
    title = f"{os.path.basename(package)}, {name}"
    say(f"     Running {title}")
    since = time.monotonic()
    environment = {**os.environ, **environment, "CARGO_MANIFEST_DIR": package}
    done = subprocess.run(
        [program], cwd=package, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    output = done.stdout.decode(errors="replace")
    say(f"\n     Ended {title}, after {time.monotonic() - since:.0f} s, with status {done.returncode}\n{output}")
    return done.returncode


def main():
    lanes, first = int(sys.argv[1]), sys.argv[2:]
    tests = programs()
    missing = set(first) - {name for name, _, _ in tests}
    if missing:
        sys.exit(f"no test has the name {', '.join(sorted(missing))}")
    # Cargo names them in the order in which they were built.
    tests.sort(key=lambda test: (first.index(test[0]) if test[0] in first else len(first), test))
    environment = toolchain()
    with ThreadPoolExecutor(lanes) as pool:
        statuses = pool.map(lambda test: run(*test, environment), tests)
        failed = [test[0] for test, status in zip(tests, statuses) if status]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


main()
