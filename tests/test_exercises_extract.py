"""What is cut out of a notebook: IPython's lines are no syntax errors, and what the notebook did to a name is done."""
import ast
import sys

import pytest

from flowlib.exercises.extract import Refused, extract
from flowlib.exercises.ipython import plain
from flowlib.exercises.submission import define


def value(*cells):
    """What `f()` gives after extraction."""
    before = sys.modules["__main__"]
    try:
        return define(extract(list(enumerate(cells, 1)), "f"), "f")[0]()
    finally:
        sys.modules["__main__"] = before


@pytest.mark.parametrize("cell, python", [
    ("%%time\nx = 1  # is the sign right?", "\nx = 1  # is the sign right?"),
    ("!pip install -q numpy, don't ask (\nx = (1,  # why not 2?\n     3)", "pass\nx = (1,  # why not 2?\n     3)"),
    ("%%time\nx = (3\n     % len(z))", "\nx = (3\n     % len(z))"),
    ("%matplotlib inline\nx = 3 \\\n  % 2", "pass\nx = 3 \\\n  % 2"),
    ("files = !ls (\nt = %timeit -o -n1 -r1 1+1\nd['='] = !ls", "files = None\nt = None\nd['='] = None"),
    ("torch.log?\n?torch.log\nf??\nx = 1 # a?\ny = 'b?'\nz.a[0]?;", "pass\npass\npass\nx = 1 # a?\ny = 'b?'\npass"),
    ("%time x = f(3)\ny = %time f(3)\n%time", "x = f(3)\ny = f(3)\npass"),
    ("!ls\ns = '''\n% x\n!y?\n'''\nt = \"it's %d\" % 3", "pass\ns = '''\n% x\n!y?\n'''\nt = \"it's %d\" % 3"),
    ("if x:\n    %cd ..\n    !ls \\\n      -l\nelse:\n    y?\n", "if x:\n    pass\n    pass\n\nelse:\n    pass\n"),
    ("\n  %%capture out\n  %%time\n  x = 3", "\n\n\nx = 3"),
    ("!a\ndef g(n): return \"n=%d\" % n", "pass\ndef g(n): return \"n=%d\" % n"),
    ("!a\nx = a != b\nassert x == '%s' % y", "pass\nx = a != b\nassert x == '%s' % y"),
    ("!a\r\nx = 1\r\n", "pass\nx = 1\n"),
    ("%%bash\nx=3", ""), ("%%writefile f.py\ndef f(): return 3", ""), ("%%!\nls", "")])
def test_ipython_lines(cell, python):
    assert plain(cell) == python
    ast.parse(python)


def test_python_is_taken_as_it_stands():
    assert value("k = 7\nx = (k\n% 4)\ns = '''\n!x\n'''\ndef f(): return x") == 3


@pytest.mark.parametrize("source", [
    "table = {}\nfor i in range(4):\n    table[i] = i\ndef f(): return table[3]",
    "L = []\nL.append(3)\ndef f(): return L[0]",
    "CFG = {}\nCFG.update(k=3)\ndef f(): return CFG['k']",
    "def f(): return f.k\nsetattr(f, 'k', 3)",
    "def f(): return f.k\nf.k = 3",
    "print(k := 3)\ndef f(): return k",
    "[k := j for j in range(4)]\ndef f(): return k",
    "p = (1, 3)\nmatch p:\n    case (1, k): pass\ndef f(): return k",
    "if __name__ == '__main__':\n    k = 3\ndef f(): return k",
    "k = 0\nwhile k < 3:\n    k += 1\ndef f(): return k",
    "T = [[0], [0]]\nfor row in T: row[0] = 3\ndef f(): return T[1][0]",
    "def fill(t): t.append(3)\nT = []\nfill(T)\ndef f(): return T[0]",
    "class A:\n    n = 0\n    def up(self): self.n += 1\na = A()\nfor _ in range(3): a.up()\ndef f(): return a.n",
    "import torch\nw = torch.zeros(1)\nwith torch.no_grad():\n    w.add_(3)\ndef f(): return w",
    "a = [1, 2, 3]\na.sort(reverse=True)\nk = a.pop(0)\ndef f(): return k",
    "def start():\n    global k\n    k = 3\nstart()\nk: int = 3\ndef f(): return k",
    "k = " + "+".join("1" * 900) + " - 897\ndef f(): return k"])
def test_what_changes_a_needed_name_is_kept(source):
    assert value(source) == 3


@pytest.mark.parametrize("source", [
    "while True: pass", "for x in iter(int, 1): print(x)", "z = train(forever)", "print(f())", "check(f)", "K.items()",
    "for step in iter(int, 1):\n    loss = net(K['lr']).mean()\n    loss.backward()\n    losses.append(loss)",
    "history = train(net, K)", "print(K)", "len(K)"])
def test_what_only_uses_a_name_is_left_out(source):
    """Training, printing and checking are not done again: a local x is not the x of the notebook."""
    kept = extract([(1, f"K = {{'lr': 3}}\n{source}\ndef f():\n    x, z, loss = 1, 2, 3\n    return K['lr']")], "f")
    assert [type(node) for _, node in kept] in ([ast.Assign, ast.FunctionDef], [ast.Assign, ast.Expr, ast.FunctionDef])
    assert len(kept) == 2 or source == "K.items()"  # a method may change its object


def test_a_broken_cell_costs_only_itself():
    assert value("def g(:", "return 3", "def f(): return 3") == 3
    with pytest.raises(Refused, match="broken"):
        extract([(1, "def f(:")], "f")
    with pytest.raises(Refused, match="missing"):
        extract([(1, "x = 1")], "f")
