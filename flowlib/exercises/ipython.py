"""Make Python of a notebook cell: IPython's own lines (%magic, !command, help?) become Python lines that do nothing.

What counts as such a line is decided where a statement begins, as in IPython: not inside of brackets, strings and
comments, and not after a backslash. Line numbers stay. A name that such a line binds (`files = !ls`) is bound to None.
"""
import ast
import re

# Cells whose body is no Python, or runs elsewhere; after any other %%magic the body runs in the notebook
FOREIGN = set("bash cmd file html javascript js latex markdown perl pypy python python2 python3 ruby script sh svg sx "
              "system writefile".split())
STRING = r"'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\""
TOKEN = re.compile(rf"#[^\n]*|('''|\"\"\")|{STRING}|\\?\n|[()\[\]{{}}]", re.DOTALL)
ESCAPED = re.compile(r"([ \t]*)([%!?,;/](?:.*\\\n)*.*)")  # a whole line, and those that a backslash joins to it
ASSIGNED = re.compile(rf"([ \t]*(?:[^=#\n('\"]|{STRING})+=[ \t]*)([%!](?:.*\\\n)*.*)")
HELP = re.compile(r"([ \t]*).*[\w\])*]\?\??[ \t]*;?[ \t]*", re.DOTALL)
TIMED = re.compile(r"%time[ \t]+(?!-)(.*)", re.DOTALL)  # %time runs a statement in the notebook


def statement_end(text: str, start: int) -> tuple[int, bool]:
    """Where the statement that begins at `start` ends, and whether with a comment, string or bracket."""
    depth, last, position = 0, start, start
    while token := TOKEN.search(text, position):
        position, found = token.end(), token[0]
        if token[1]:  # a string over several lines
            closing = re.compile(rf"(?:\\.|[^\\])*?{token[1]}", re.DOTALL).match(text, position)
            position = closing.end() if closing else len(text)
        elif found == "\n" and depth <= 0:
            return position, last == token.start()
        depth += (found in "([{") - (found in ")]}")
        last = last if found.endswith("\n") else position
    return len(text), last == len(text) > start


def runs(command: str, otherwise: str) -> str:
    """The Python that a magic command runs in the notebook, or `otherwise`."""
    timed = TIMED.fullmatch(command)
    return timed[1] if timed else otherwise + "\n" * command.count("\n")


def plain(text: str) -> str:
    """The Python text of a cell with IPython's lines in it; as many lines, each at its place."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blank, indent = next(re.finditer(r"((?:[ \t]*\n)*)([ \t]*)", text)).groups()
    text = re.sub(f"^{indent}", "", text[len(blank):], flags=re.MULTILINE)  # IPython allows a cell to be shifted
    magic = re.match(r"%%(\S*).*", text)
    if magic:
        foreign = magic[1] in FOREIGN or magic[1].startswith("!")
        return "" if foreign else "\n" * blank.count("\n") + plain(text[magic.end():])
    out, position = ["\n" * blank.count("\n")], 0
    while position < len(text):
        if found := ESCAPED.match(text, position):
            out.append(found[1] + runs(found[2], "pass"))
        elif found := ASSIGNED.match(text, position):
            out.append(found[1] + runs(found[2], "None"))
        else:
            end, closed = statement_end(text, position)
            line = text[position:end]
            asked = None if closed else HELP.fullmatch(line.rstrip("\n"))
            out.append(asked[1] + "pass" + "\n" * line.count("\n") if asked else line)
            position = end
            continue
        position = found.end()
    return "".join(out)


def parse(text: str) -> list[ast.stmt] | None:
    """The statements of a cell, None if it has a syntax error. What is Python as it stands is taken as it stands."""
    for version in (str, plain):
        try:
            return ast.parse(version(text)).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None
