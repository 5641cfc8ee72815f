"""Write the reference pages from the package's docstrings, without importing it (griffe reads the source).

    python book/tools/api_pages.py flowlib book/reference

Docstrings are Markdown with Google sections: formulas are $...$, links are [Flow](#flowlib.Flow), so the same text
reads well in the source, in help() and on the page. pages.json says which name stands on which page. A public name on
no page, a listed name that is not public, and a public name without a docstring are errors.
"""
import inspect
import json
import re
import sys
from pathlib import Path

import griffe
from setup_cell import PLACEHOLDER, address

OPTIONS = {"returns_named_value": False, "returns_multiple_items": False, "warn_unknown_params": False,
           "warn_missing_types": False}
PRIVATE = {"__version__"}
ON_THEIR_OWN = {"sbi", "sklearn", "train", "viz"}  # public modules that `import flowlib` leaves out: they need more
ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{5}|\d{4}\.\d{4})\b")


def target(item):
    return item.final_target if item.is_alias else item


def public_names(package):
    """What `flowlib` exports; of a public module, what the module exports, as `checks.jacobian`, but for constants."""
    names = set()
    for name in set(package.exports or []) - PRIVATE | (ON_THEIR_OWN & package.members.keys()):
        item = target(package[name])
        inside = [inner for inner in item.exports or [] if inner in item.members] if item.is_module else []
        names |= {f"{name}.{inner}" for inner in inside if not target(item[inner]).is_attribute} or {name}
    return names


def signature(item):
    """The arguments as in the source, without self and without types."""
    shown, star = [], False
    for parameter in item.parameters:
        kind = parameter.kind.value if parameter.kind else ""
        if parameter.name in ("self", "cls"):
            continue
        if kind == "keyword-only" and not star:
            shown.append("*")
        star = star or kind in ("keyword-only", "variadic positional")
        name = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "") + parameter.name
        required = parameter.default is None or kind.startswith("variadic")
        shown.append(name if required else f"{name}={parameter.default}")
    return f"({', '.join(shown)})"


def code(text):
    return f"```python\n{text}\n```"


def entry(item, section, declared):
    """One line of Args, Returns, Raises or Attributes. griffe takes what stands before a colon for a type, and the
    declared type of the return where there is no colon; the reader sees the sentence as it was written."""
    text = inspect.cleandoc(item.description).replace("\n", "\n  ")
    name, kind = getattr(item, "name", ""), str(getattr(item, "annotation", None) or "")
    if name or section == "raises":
        return f"- `{name or kind}`: {text}"
    return f"- {kind}: {text}" if kind and kind != declared else f"- {text}"


def body(item):
    """The docstring as Markdown."""
    out, declared = [], str(getattr(item, "returns", "") or "")
    for section in item.docstring.parse("google", **OPTIONS) if item.docstring else []:
        kind, value = section.kind.value, section.value
        if kind == "text":
            out.append(value.strip())
        elif kind == "examples":
            out.append("**Example**")
            out += [text.strip() if part.value == "text" else code(text) for part, text in value]
        elif kind == "admonition":
            text = value.description
            out.append(f"**{section.title}**\n\n" + (code(text) if text.lstrip().startswith(">>>") else text))
        else:
            out.append(f"**{section.title or kind.capitalize()}**\n\n"
                       + "\n".join(entry(part, kind, declared) for part in value))
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", "\n\n".join(part for part in out if part))


def lineage(item):
    """The class and its private ancestors: what those define belongs to the class as a reader sees it."""
    return [item] + [parent for parent in item.mro() if parent.name.startswith("_")]


def shown_members(item):
    """The documented public members of a class, in the order of the source; inherited ones stand at the ancestor."""
    found = {}
    for part in lineage(item):
        for name, member in part.members.items():
            if not member.is_alias and not name.startswith("_") and member.docstring:
                found.setdefault(name, member)
    return found


def extends(item):
    """The public ancestors next to a class, as text."""
    bases = [str(base) for part in lineage(item) for base in part.bases]
    names = [f"`{base}`" for base in bases if not base.split(".")[-1].startswith("_")]
    return [f"Extends {', '.join(names)}.", ""] if names else []


def directive(item, name, fence, own=""):
    """A MyST directive for one name and, in a class, one for each documented member."""
    args = "" if item.is_attribute else signature(item)
    kind = "class" if item.is_class else "method" if item.parent.is_class else "function"
    if item.is_attribute:
        kind = "property" if "property" in item.labels else "attribute" if item.parent.is_class else "data"
    parts = [f"{fence}{{py:{kind}}} {name}{args}", ""]
    if item.is_class:
        parts += extends(item)
    parts += [body(item), "", own, ""]
    if item.is_class:
        parts += [directive(member, f"{name}.{inner}", fence[:-1]) for inner, member in shown_members(item).items()]
    return "\n".join(parts + [fence, ""])


def page_text(page, package, url):
    """One reference page."""
    parts = [f"# {page['title']}\n\n{page['lead']}\n\n```{{py:currentmodule}} {package.name}\n```\n"]
    for name in page["names"]:
        item = target(package[name])
        source = item.relative_package_filepath.as_posix()
        link = (f"Source: `{source}`" if url.startswith(PLACEHOLDER)
                else f"[Source]({url}/blob/main/{source}#L{item.lineno})")
        parts += [f"## {name}\n", directive(item, name, "::::::", link)]
    return "\n".join(parts)


def faults(package, pages):
    listed = [name for page in pages for name in page["names"]]
    public = public_names(package)
    found = [f"{name} is public and on no page" for name in sorted(public - set(listed))]
    found += [f"{name} is on a page and not public" for name in sorted(set(listed) - public)]
    found += [f"{name} is listed twice" for name in sorted({name for name in listed if listed.count(name) > 1})]
    return found + [f"{name} has no docstring" for name in sorted(public & set(listed))
                    if not target(package[name]).docstring]


def main(package_name, folder):
    package = griffe.load(package_name, search_paths=["."], allow_inspection=False)
    pages = json.loads(Path(folder, "pages.json").read_text())
    found = faults(package, pages)
    if found:
        sys.exit("reference pages (book/reference/pages.json):\n  " + "\n  ".join(found))
    for page in pages:
        Path(folder, page["file"]).write_text(page_text(page, package, address()))


if __name__ == "__main__":
    main(*sys.argv[1:3])
