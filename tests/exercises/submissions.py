"""Submissions made from the student version of problem set 1: right ones, typical wrong ones, damaged ones, attacks."""
import copy
import json
import re

from answers import text
from wrong_ps1 import ANSWERS, WRONG, changed

SOURCE, GOOD, notebook = ANSWERS.source, ANSWERS.good, ANSWERS.notebook


def code(source, **more):
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": source} | more


def write(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.ipynb").write_text(content if isinstance(content, str) else json.dumps(content))


PATCH = '''
import sys
import numpy as np
import flowlib.exercises.judge as judge
import flowlib.exercises.ps1 as ps1
judge.close = lambda *a: True
judge.hidden_test = lambda *a: None
torch.allclose = torch.equal = np.allclose = lambda *a, **k: True
np.savez = lambda *a, **k: None
class Any(np.ndarray):
    def __eq__(self, other): return True
    def __array_function__(self, *a, **k): return True
'''


def trial():
    """name -> (notebook, parts that get no points): the submissions of the trial, adapted to this problem set."""
    everything = set().union(*(lost for answers in WRONG.values() for _, _, lost in answers))
    wrong = {(function, name): answer for function, answers in WRONG.items() for name, answer, _ in answers}
    of = {"q1": "weibull", "q3": "low_rank", "q4": "banana", "q5": "chain"}
    q1i, q3i = {"q1_z", "q1_inverse_log_slope"}, {"q3_z", "q3_inverse_log_det", "q3_cost"}
    assert {part[:2] for part in everything} == set(of)
    subs = {
        "s0_perfect": (notebook(GOOD), set()),
        "s1_empty": (notebook({}), everything),
        "s2_wrong_sign": (notebook(GOOD | {"chain_log_prob": wrong["chain_log_prob", "wrong sign"]}),
                          {"q5_log_prob", "q5_gradient"}),
        "s3_missing_sums": (notebook(GOOD | {name: wrong[name, "missing sum"]
                                             for name in ("low_rank_forward", "low_rank_inverse")}),
                            {"q3_forward", "q3_inverse_log_det", "q3_cost"}),
        "s4_no_jacobian": (notebook(GOOD | {"banana_forward": changed(
            "banana_forward", ("a.abs().log() + c * z[:, 0]", "0 * z[:, 0]"))}), {"q4_forward"}),
        "s5_syntax": (notebook(GOOD | {"weibull_inverse": "def weibull_inverse(x, scale, shape):\n    return (x\n",
                                       "low_rank_forward": wrong["low_rank_forward", "no bars"]}),
                      q1i | {"q3_forward"}),
        "s6_loop": (notebook(GOOD | {"weibull_inverse": "def weibull_inverse(x, scale, shape):\n"
                                     "    while True:\n        pass"}), q1i),
        "s7_cheat_patch": (notebook({name: f"{PATCH}def {name}(*a):\n    return np.zeros(a[0].shape).view(Any), "
                                     f"np.zeros(len(a[0])).view(Any)" for name in GOOD}), everything),
        "s8_cheat_exit": (notebook(GOOD | {"low_rank_inverse": "import sys, os\ndef low_rank_inverse(x, d, u, v):\n"
                                           "    os._exit(0)\nsys.exit(0)\nos._exit(0)"}), q3i),
    }
    lost = notebook(GOOD)
    lost["metadata"], lost["nbformat_minor"] = {}, 4
    for cell in lost["cells"]:
        cell["metadata"] = {}
        cell.pop("id", None)
    extra = notebook(GOOD)
    extra["cells"][3:3] = [code("!echo hello\n%matplotlib inline\nimport math"), code("zzz = undefined_name"),
                           code("import os; os._exit(3)")]
    twins = notebook(GOOD)
    place = next(i for i, cell in enumerate(twins["cells"]) if text(cell).startswith("def chain_log_prob"))
    twins["cells"].insert(place, copy.deepcopy(twins["cells"][place])
                          | {"source": wrong["chain_log_prob", "wrong sign"]})
    huge = notebook(GOOD)
    huge["cells"].append(code("x = 1", outputs=[{"output_type": "stream", "name": "stdout",
                                                 "text": "0123456789" * 3_000_000}]))
    huge["cells"].append(code("for i in range(20000): print('epoch', i, 'loss ' * 20)"))
    bare = notebook(GOOD)
    bare["cells"] = [cell for cell in bare["cells"] if cell["cell_type"] == "code"
                     and re.match(r"def |import ", text(cell))]
    return subs | {"t1_no_metadata": (lost, set()), "t2_extra_cells": (extra, set()), "t3_duplicated": (twins, set()),
                   "t4_huge_output": (huge, set()), "t5_no_checks": (bare, set())}


FORGED = '''
import io, os, sys, zipfile
import numpy as np
b = io.BytesIO()
{make}
os.lseek(3, 0, 0)
os.write(3, b.getvalue())
os._exit(0)
'''


def attacks(probe, port, secret):
    """name -> body of `weibull_forward`. Each leaves a mark under `probe`, at the port or in the feedback if it gets
    through."""
    read = f"open({str(secret)!r}).read().strip()"
    header = "np.lib.format.write_array_header_1_0(f, dict(descr='<f8', fortran_order=False, shape=(10**12,)))"
    return {
        "a1_write": f"open({str(probe / 'a1')!r}, 'w').write('x')\nreturn z, z",
        "a2_network": "import socket\n"
                      f"socket.create_connection(('127.0.0.1', {port}), timeout=2).send(b'in')\nreturn z, z",
        "a3_read_others": f"raise type({read}, (Exception,), {{}})({read})",
        "a4_leak_by_a_name": FORGED.format(make=f"np.savez(b, error=np.array(['raised', {read}, '1', '1']))"),
        "a5_memory": "b = [bytearray(1 << 28) for _ in range(1000)]",
        "a6_flood": "import os\nfor fd in range(3, 30):\n    try:\n        while True: os.write(fd, b'x' * (1 << 20))\n"
                    "    except OSError: pass\nreturn z, z",
        "a7_daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(4)\n"
                     f"    open({str(probe / 'a7')!r}, 'w').write('x')\n    os._exit(0)\nreturn z, z",
        "a8_forge": FORGED.format(make="np.savez(b, **{f'{i}_{k}': np.zeros(3) for i in range(2) "
                                        "for k in ('r0', 'r1', 'g0', 'g1')})"),
        "a9_pickle": FORGED.format(make="class P:\n    def __reduce__(self):\n        import os\n"
                                   f"        return os.system, ('touch {probe / 'a9'}',)\n"
                                   "np.savez(b, **{'0_r0': np.array([P()], dtype=object)})"),
        # only as process 1 of a namespace: elsewhere it would end what the person who runs the tests has open
        "b1_kill": "import os\nif os.getpid() == 1:\n    for pid in (os.getppid(), -1):\n        try: os.kill(pid, 9)\n"
                   "        except OSError: pass\nreturn z, z",
        "b2_sleep": "import time\ntime.sleep(60)",
        "b3_judge": "import flowlib.exercises.ps1.reference as answers\n"
                    "return answers.weibull_forward(z, scale, shape)",
        "b4_bomb_shape": FORGED.format(make="with zipfile.ZipFile(b, 'w') as a:\n"
                                             f"    with a.open('0_r0.npy', 'w') as f:\n        {header}"),
        "b5_bomb_zip": FORGED.format(make="np.savez_compressed(b, **{'0_r0': np.zeros(1 << 24)})"),
        "b6_views": "z = torch.zeros(1).expand(10**12)\nreturn z, z",
        "b7_uncover": "import ctypes, os\nc = ctypes.CDLL(None)\nc.unshare(0x10000000 | 0x20000)\n"
                      "for m in (b'/', b'/usr'): c.umount2(m, 2)\n"
                      f"raise type({read}, (Exception,), {{}})",
    }


def attack_notebook(body):
    """A submission whose first function attacks and whose others are right."""
    lines = "\n".join("    " + line for line in body.strip("\n").split("\n"))
    return notebook(GOOD | {"weibull_forward": f"def weibull_forward(z, scale, shape):\n{lines}"})
