"""The set-up cell of every lesson, the repository's public address, and the release that Colab installs.

    python book/tools/setup_cell.py repository https://github.com/you/yours
    python book/tools/setup_cell.py release v1.0

The address is held by `repository.url` in _config.yml. The first command changes it there and in every other file of the
repository that names it; the second changes FLOWLIB_REF in every notebook. Both replace text and leave the rest of a file
byte for byte. Standard library only.
"""
import re
import subprocess
import sys
from pathlib import Path

CELL = '''\
# Set-up. In Colab this installs flowlib; in a clone, or where flowlib is installed, it changes nothing.
import importlib.util, os, subprocess, sys

FLOWLIB_REF = "{ref}"
REPOSITORY = "{url}"

if importlib.util.find_spec("flowlib") is None:
    clone = next((up for up in (".", "..", "../..") if os.path.isfile(os.path.join(up, "flowlib", "core.py"))), None)
    if clone:
        sys.path.insert(0, os.path.abspath(clone))
    else:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"git+{REPOSITORY}@{FLOWLIB_REF}"], check=True)
        importlib.invalidate_caches()'''

ADDRESS = re.compile(r"^  url: (\S+)$", flags=re.MULTILINE)
REF = re.compile(r'(?<=FLOWLIB_REF = \\")[^"\\]*(?=\\")')  # as JSON writes it in a notebook
GOOD_ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")
GOOD_TAG = re.compile(r"[\w.-]+")


def address():
    """The public address of the repository."""
    return ADDRESS.search(Path("_config.yml").read_text())[1]


def cell(url, ref):
    """The source of the set-up cell."""
    return CELL.replace("{url}", url).replace("{ref}", ref)


def tracked():
    """The text files that git knows, the vendored ones left out."""
    names = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    for path in map(Path, filter(None, names)):
        if "vendor" not in path.parts and path.is_file():
            try:
                yield path, path.read_text()
            except UnicodeDecodeError:
                continue


def rewrite(change, files):
    """Apply a change of text to files and name those it changed."""
    for path, before in files:
        after = change(before)
        if after != before:
            path.write_text(after)
            print(path)


def main(command, value):
    value = value.removesuffix("/").removesuffix(".git") if command == "repository" else value
    good = {"repository": GOOD_ADDRESS, "release": GOOD_TAG}[command]
    if not good.fullmatch(value):
        sys.exit(f"not a usable {command}: {value!r} (expected like https://github.com/you/yours, or v1.0)")
    files = list(tracked())
    if command == "repository":
        old = re.compile(re.escape(address()) + r"(?![\w-])")  # not the start of a longer name
        rewrite(lambda text: old.sub(value, text), files)
    else:
        rewrite(lambda text: REF.sub(value, text), [(path, text) for path, text in files if path.suffix == ".ipynb"])


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("repository", "release"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
