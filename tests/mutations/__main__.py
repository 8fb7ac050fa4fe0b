"""Breaks the code on purpose, one patch at a time, and prints which test notices.

    .venv/bin/python -m tests.mutations                                 # all of them
    .venv/bin/python -m tests.mutations strategies/test_cma_es core     # of one test module, and of a folder

`tests/mutations/strategies/test_cma_es/NAME.patch` breaks something that `tests/strategies/test_cma_es.py` must notice.
The first line of a patch says what it breaks. The patches are applied to a copy of the checkout.
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ("zoo", "strategies", "problems", "tests", "benchmarks", "conftest.py", "pyproject.toml")
FAILED_TESTS = 1  # pytest's exit status; others say that no test could run


def module_of(patch: pathlib.Path) -> str:
    """Returns the path of the test module that must notice the patch."""
    return f"tests/{patch.parent.relative_to(HERE).as_posix()}.py"


def apply(patch: pathlib.Path, root: pathlib.Path, *options: str) -> None:
    """Applies a patch to the files in `root`.

    Raises:
      ValueError: If the code that it changes is not there.
    """
    done = subprocess.run(["git", "apply", *options, str(patch)], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{patch.relative_to(ROOT)} does not apply: {done.stderr.strip()}. Write it anew.")


def copy_of_the_checkout(folder: pathlib.Path) -> pathlib.Path:
    """Copies the code and its tests into `folder`, and puts the two folders that belong to the package into it."""
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    for name in ("strategies", "problems"):
        (folder / "zoo" / name).symlink_to(folder / name)
    return folder


def first_failure(copy: pathlib.Path, tests: list[str]) -> str | None:
    """Runs tests in a copy until one fails, and returns its id; or `None` if all pass.

    Raises:
      RuntimeError: If no test could run.
    """
    # Without bytecode: a patched file may have the size and the second of the file before it.
    environment = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "programs"), **os.environ}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    failed = [line.split(" - ")[0].split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode != FAILED_TESTS or not failed:
        raise RuntimeError("\n".join([f"pytest ended with {done.returncode}:", *done.stdout.splitlines()[-15:]]))
    return failed[0]


def noticed_by(patch: pathlib.Path, copy: pathlib.Path) -> str | None:
    """Returns the first test that fails with the patch, or `None`; the copy is as before afterwards."""
    apply(patch, copy)
    try:
        return first_failure(copy, [module_of(patch)])
    finally:
        apply(patch, copy, "--reverse")


def main() -> int:
    parser = argparse.ArgumentParser(description="Breaks the code on purpose, and prints which test notices.")
    parser.add_argument("only", nargs="*", help="folders in tests/mutations, or single patches; all if none is given")
    parser.add_argument("--processes", type=int, default=2, help="how many patches are tried at a time")
    arguments = parser.parse_args()
    chosen = [HERE / name for name in arguments.only] or [HERE]
    patches = [path for start in chosen for path in ([start] if start.is_file() else sorted(start.rglob("*.patch")))]
    if not patches:
        parser.error(f"there is no patch in {', '.join(map(str, chosen))}")

    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(arguments.processes) as pool:
        copies = queue.SimpleQueue()
        for number in range(arguments.processes):
            copies.put(copy_of_the_checkout(pathlib.Path(folder, str(number))))

        def attempt(patch):
            copy = copies.get()
            try:
                return noticed_by(patch, copy), ""
            except (RuntimeError, ValueError) as error:
                return None, str(error)
            finally:
                copies.put(copy)

        unnoticed, tests = 0, {}
        for patch, (test, problem) in zip(patches, pool.map(attempt, patches), strict=True):
            name = patch.relative_to(HERE).with_suffix("").as_posix()
            unnoticed += test is None
            print(f"{name}: {problem or (test.partition('::')[2] if test else 'NOT NOTICED')}", flush=True)
            tests.update({test: None} if test else {})
        # A test that fails without a patch notices nothing.
        fails_anyway = first_failure(copies.get(), [*tests]) if tests else None
    print(f"{len(patches) - unnoticed} of {len(patches)} patches noticed")
    if fails_anyway:
        print(f"but {fails_anyway} fails without a patch, too")
    return int(bool(unnoticed or fails_anyway))


if __name__ == "__main__":
    sys.exit(main())
