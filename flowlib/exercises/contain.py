"""What a child process may do, set before any submitted code runs. Standard library only.

`isolate` (Linux 5.12 or newer, no root needed where the system allows user namespaces) gives a process a network,
process ids and a file system of its own: an empty scratch folder and, read-only, the folders of Python and its
packages. Nothing else exists there: no submission, no result, no home folder. What `unshare` and `mount` do on a
command line is done here by the same system calls, so that a process that has imported torch already can be forked into
its cage. `forbid_calls` (Linux on x86-64 and aarch64) takes away what no namespace holds: other processes, sockets, the
kernel's keys, memory without an address. So one process is all there is, and its limit of memory is that of the whole
submission. `limit` works everywhere: time, memory, file size, number of files and processes.
"""
import ctypes
import errno
import os
import platform
import resource
import struct
import sys

NOBODY = 65534
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, BIND, MOVE, REC, PRIVATE = 2, 4, 4096, 8192, 16384, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
NO_NEW_PRIVILEGES, CAPABILITY_VERSION = 38, 0x20080522

# Numbers of system calls: on x86-64, on aarch64
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, and the name that the kernel has for it
CALLS = {
    "processes": {"fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "process_vm_readv": (310, 270),
                  "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438), "kcmp": (312, 272)},
    "sockets": {"socket": (41, 198), "io_uring_setup": (425, 425)},
    "keys": {"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    "memory that no limit of a process counts": {
        "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190),
        "msgget": (68, 186), "mq_open": (240, 180), "bpf": (321, 280), "perf_event_open": (298, 241),
        "userfaultfd": (323, 282)},
    "namespaces and mounts": {
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
        "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
        "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265)},
}
JOIN_SESSION_KEYRING = 1
CLONE, CLONE3, CLONE_THREAD = (56, 220), 435, 0x10000  # with this flag it starts a thread, else a process
SET_SECCOMP, FILTER, X32 = 22, 2, 0x40000000
KILL, REFUSE, ALLOW = 0x80000000, 0x50000, 0x7FFF0000  # what a filter answers
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of BPF
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # where they lie in what the filter sees

libc = ctypes.CDLL(None, use_errno=True)


def call(what: str, result: int) -> None:
    """OSError if a system call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    text = [None if value is None else os.fsencode(value) for value in (source, target, kind, options)]
    call(f"mount {target}", libc.mount(*text[:3], ctypes.c_ulong(flags), text[3]))


def bind(source: str, target: str) -> None:
    """Show a folder (read-only, with all mounted inside it) or a device at another place."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT))
    mount(source, target, None, BIND | REC)
    if not source.startswith("/dev/"):
        attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NOSUID | NODEV, 0, 0, 0)
        call(f"read-only {source}", libc.syscall(MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), AT_RECURSIVE,
                                                 ctypes.byref(attributes), ctypes.sizeof(attributes)))


def isolate(visible: list[str], hidden: list[str], folder: str) -> None:
    """Leave the machine's network, processes and files; the next forked child is process 1 of the new ones.

    Args:
        visible: Folders and files to show at their own paths. Later ones may lie inside earlier ones.
        hidden: Folders to cover where they lie inside visible ones.
        folder: An empty folder, the place where the new file system is put together.

    Raises:
        OSError: The system does not allow it; the message says which step.
    """
    user, group, root = os.geteuid(), os.getegid(), os.geteuid() == 0
    call("unshare", libc.unshare(NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | (0 if root else NEWUSER)))
    if not root:  # a user namespace gives the right to mount, inside of it only
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount(None, "/", None, REC | PRIVATE)  # nothing mounted here is seen outside
    mount("tmpfs", folder, "tmpfs", NOSUID | NODEV, "size=64m,mode=755")
    for source in (*visible, "/dev/null", "/dev/zero", "/dev/urandom"):
        bind(source, folder + source)
    for source in hidden:
        if os.path.isdir(folder + source):
            mount("tmpfs", folder + source, "tmpfs", NOSUID | NODEV, "size=4k,mode=555,ro")
    os.mkdir(folder + "/scratch")
    os.chmod(folder + "/scratch", 0o777)
    os.chdir(folder)
    mount(".", "/", None, MOVE)
    os.chroot(".")
    os.chdir("/scratch")


def drop_privileges() -> None:
    """Give up what `isolate` needed: nothing can be mounted or uncovered afterwards, and root becomes nobody."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    elif hasattr(libc, "capset"):
        header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
        call("capset", libc.capset(ctypes.byref(header), ctypes.byref(none)))
    if hasattr(libc, "prctl"):
        call("prctl", libc.prctl(NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))))


def own_keys() -> None:
    """A session keyring of its own, empty: else the child has the keys of the person who grades."""
    if sys.platform == "linux" and platform.machine() in MACHINES:  # where it is refused, so is every use of keys
        libc.syscall(CALLS["keys"]["keyctl"][MACHINES[platform.machine()][0]], JOIN_SESSION_KEYRING, None)


def can_forbid_calls() -> bool:
    """Whether this system takes a filter: it complains about the address of one that is not there."""
    if sys.platform != "linux" or platform.machine() not in MACHINES or sys.maxsize < 2**32:
        return False
    libc.prctl(SET_SECCOMP, *map(ctypes.c_ulong, (FILTER, 0, 0, 0)))
    return ctypes.get_errno() == errno.EFAULT


def call_filter(column: int, architecture: int) -> list[tuple[int, int, int, int]]:
    """The instructions (code, jump if true, jump if false, operand) that let all system calls pass but those of CALLS
    and new processes. What is refused gives EPERM."""
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    program = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    program += [(AT_LEAST, 0, 1, X32), refuse]  # x86-64's second table of the same calls
    for calls in CALLS.values():
        for numbers in calls.values():
            if numbers[column] is not None:
                program += [(EQUAL, 0, 1, numbers[column]), refuse]
    # clone3 has its flags in memory, out of sight: "not known here" makes the C library take clone
    program += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    program += [(EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT),
                (ANY_BIT, 1, 0, NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET),
                (ANY_BIT, 1, 0, CLONE_THREAD), refuse]
    return [*program, (RETURN, 0, 0, ALLOW)]


def forbid_calls() -> None:
    """Install the filter for this process and all that it becomes; there is no way back.

    Raises:
        OSError: The system does not allow it.
    """
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    lines = call_filter(*MACHINES[platform.machine()])
    program = Program(len(lines), b"".join(struct.pack("HBBI", *line) for line in lines))
    call("filter", libc.prctl(SET_SECCOMP, ctypes.c_ulong(FILTER), ctypes.byref(program), *map(ctypes.c_ulong, (0, 0))))


def limit(seconds: int, memory: int, file_size: int, processes: int | None) -> None:
    """Hard limits: processor time (s), memory and file size (bytes), processes (None: the user's own stays)."""
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_AS": memory, "RLIMIT_FSIZE": file_size, "RLIMIT_NOFILE": 128,
              "RLIMIT_CORE": 0, "RLIMIT_NPROC": processes}
    for name, value in limits.items():
        if value is not None and hasattr(resource, name):
            try:
                resource.setrlimit(getattr(resource, name), (value, value))
            except (ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
                pass
