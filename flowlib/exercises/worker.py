"""The process that students' functions come from: it imports numpy and torch once, then forks one child for each job.

    python -I worker.py CONTROL CONFIGURATION      (started by sandbox.py)

It never runs submitted code itself, and it knows inputs, never answers. A request on the control socket carries two
open files, the job and the place for the answer. A supervisor is forked, goes into namespaces of its own (contain.py)
and forks the child that runs the function (submission.py); when the child ends or its time is over, the supervisor
kills it, and with process 1 of a process namespace everything that it started.
"""
import io
import json
import os
import signal
import socket
import sys
import time
import types

HERE = os.path.dirname(os.path.abspath(__file__))
FINISHED, OVERTIME, NO_ISOLATION = 0, 3, 4
ANSWER_SIZE = 32 << 20  # bytes


def child(job: dict, data: dict, answer: int, memory: int) -> None:
    """The process of the submitted function."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    answer = os.dup2(answer, 3)
    os.closerange(4, 4096)
    contain.drop_privileges()
    contain.own_keys()
    # without namespaces the limit would count all that an ordinary user runs: then it stays as it is
    processes = 64 if job["isolate"] or os.geteuid() == contain.NOBODY else None
    # the clock comes first; the limit of processor time is for what escapes it
    contain.limit(job["seconds"] + 1, memory + job["memory"], ANSWER_SIZE, processes)
    if job["filter"]:
        contain.forbid_calls()
    submission.run(job, data, answer)


def supervise(job_file: int, answer: int, configuration: dict) -> None:
    """Fork the child, wait, kill; the status goes to the worker as exit code. If the worker ends, so does the child."""
    worker = os.getppid()
    with os.fdopen(job_file, "rb") as file:
        job = json.loads(file.readline())
        data = dict(np.load(io.BytesIO(file.read()), allow_pickle=False))
    with open("/proc/self/statm") if sys.platform == "linux" else io.StringIO("0") as file:
        memory = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # what torch has mapped already
    if job["isolate"]:
        try:
            contain.isolate(configuration["visible"], configuration["hidden"], configuration["folder"])
        except OSError as error:
            os.write(answer, str(error).encode())
            os._exit(NO_ISOLATION)
    pid = os.fork()
    if pid == 0:
        child(job, data, answer, memory)
    end, pause, status = time.monotonic() + job["seconds"], 0.002, OVERTIME
    while status == OVERTIME and time.monotonic() < end and os.getppid() == worker:
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
        status = FINISHED if os.waitpid(pid, os.WNOHANG)[0] else OVERTIME
    try:
        os.killpg(pid, signal.SIGKILL)  # and what it left behind in its session
    except OSError:
        pass
    os._exit(status)


def serve(control: socket.socket, configuration: dict) -> None:
    """Answer requests until the grader closes the socket."""
    control.send(b"ready")
    while True:
        message, files, _, _ = socket.recv_fds(control, 16, 2)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            try:
                job_file, answer = files
                supervise(job_file, answer, configuration)
            finally:
                os._exit(1)
        for file in files:
            os.close(file)
        status = os.waitpid(pid, 0)[1]
        control.send(b"%d" % (os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1))


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    sys.path += [folder for folder in settings["packages"] if folder not in sys.path]
    # this folder as a package of its own: the one that it lies in holds the answers and is not there in the cage
    cage = sys.modules["cage"] = types.ModuleType("cage")
    cage.__path__ = [HERE]
    import numpy as np
    import torch
    from cage import contain, submission

    cage.__path__ = []
    torch.set_num_threads(1)  # no threads: a fork keeps only one
    serve(socket.socket(fileno=int(sys.argv[1])), settings)
