"""The set-up cell of every notebook, the repository's public address, and the commit that Colab installs.

    python book/tools/setup_cell.py repository https://github.com/you/yours
    python book/tools/setup_cell.py release v1.0

The address is held by `repository.url` in _config.yml. Until there is a real one it is on example.org, a host that
nobody can own (RFC 2606): then the cell installs nothing, and the site leaves out the buttons that lead to the
repository (book/_ext/address.py). `repository` changes the address wherever it stands; `release` pins what the
notebooks install to the commit of a tag. A commit is named by its hash, so nobody can put other code in its place. Both
commands leave the rest of a file byte for byte. Standard library only.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

PLACEHOLDER = "https://example.org/"

FIND = '''\
if importlib.util.find_spec("flowlib") is None:
    clone = next((up for up in (".", "..", "../..") if os.path.isfile(os.path.join(up, "flowlib", "core.py"))), None)
    if clone:
        sys.path.insert(0, os.path.abspath(clone))
    else:
'''
UNPUBLISHED = '''\
# Set-up. In a clone, or where flowlib is installed, this changes nothing.
import importlib.util, os, sys

REPOSITORY = COMMIT = ""  # there is no public address yet

''' + FIND + '''\
        raise ModuleNotFoundError("flowlib is not here, and has no public address yet to install it from: "
                                  "open this notebook in a clone of its repository, or `pip install` the clone first")\
'''
PUBLISHED = '''\
# Set-up. In Colab this installs flowlib; in a clone, or where flowlib is installed, it changes nothing.
import importlib.util, os, subprocess, sys

REPOSITORY = "{url}"
COMMIT = "{commit}"  # {name}

''' + FIND + '''\
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"git+{REPOSITORY}@{COMMIT}"],
                       check=True)
        importlib.invalidate_caches()'''

ADDRESS = re.compile(r"^  url: (\S+)$", flags=re.MULTILINE)
PIN = re.compile(r'^COMMIT = "(.*)"  # (.*)$', flags=re.MULTILINE)
GOOD_ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")
GOOD_TAG = re.compile(r"\w[\w.-]*")


def address():
    """The public address of the repository, or the placeholder."""
    return ADDRESS.search(Path("_config.yml").read_text())[1]


def cell(url, commit="", name=""):
    """The source of the set-up cell that installs this commit, whose name is shown beside it."""
    return UNPUBLISHED if url.startswith(PLACEHOLDER) else (
        PUBLISHED.replace("{url}", url).replace("{commit}", commit).replace("{name}", name))


def pin(source):
    """The commit that a set-up cell installs and its name, ("", "") where it installs none."""
    found = PIN.search(source)
    return found.groups() if found else ("", "")


def commit_of(revision):
    """The hash of a revision of this repository."""
    done = subprocess.run(["git", "rev-parse", "--verify", "-q", f"{revision}^{{commit}}"], capture_output=True,
                          text=True)
    if done.returncode:
        sys.exit(f"this repository has no {revision}")
    return done.stdout.strip()


def tracked():
    """The text files that git knows, the vendored ones left out."""
    names = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    for path in map(Path, filter(None, names)):
        if "vendor" not in path.parts and path.is_file():
            try:
                yield path, path.read_text()
            except UnicodeDecodeError:
                continue


def with_cell(text, url, found):
    """The text of a notebook with the set-up cell for this address; `found` is the commit and name, or None for those
    it has."""
    notebook = json.loads(text)
    for part in notebook["cells"]:
        source = "".join(part["source"])
        if part["cell_type"] == "code" and source.startswith("# Set-up. "):
            part["source"] = cell(url, *(found or pin(source))).splitlines(keepends=True)
            return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return text


def main(command, value):
    old = new = address()
    found = None
    if command == "repository":
        new = value.removesuffix("/").removesuffix(".git")
        if not GOOD_ADDRESS.fullmatch(new):
            sys.exit(f"not a usable repository: {value!r} (expected like https://github.com/you/yours)")
        if old.startswith(PLACEHOLDER):
            found = commit_of("HEAD"), "no release yet"
    else:
        if not GOOD_TAG.fullmatch(value):
            sys.exit(f"not a usable release: {value!r} (expected a tag like v1.0)")
        if old.startswith(PLACEHOLDER):
            sys.exit("a release is installed from a public address: first `make repository URL=...`")
        found = commit_of(f"refs/tags/{value}"), value
    elsewhere = re.compile(re.escape(old) + r"(?![\w-])")  # not the start of a longer name
    for path, before in tracked():
        after = elsewhere.sub(new, before)
        if path.suffix == ".ipynb":
            after = with_cell(after, new, found)
        if after != before:
            path.write_text(after)
            print(path)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("repository", "release"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
