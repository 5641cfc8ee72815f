"""What a child process may do, set by the child's parent before any submitted code runs. Standard library only.

`isolate` (Linux 5.12 or newer, no root needed where the system allows user namespaces) gives a process a network,
process ids and a file system of its own: an empty scratch folder and, read-only, the folders of Python and its
packages. Nothing else exists there: no submission, no result, no home folder. What `unshare` and `mount` do on a
command line is done here by the same system calls, so that a process that has imported torch already can be forked into
its cage. `limit` works everywhere: time, memory, file size, number of files and processes.
"""
import ctypes
import os
import resource

NOBODY = 65534
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, BIND, MOVE, REC, PRIVATE = 2, 4, 4096, 8192, 16384, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, READ_ONLY = 442, -100, 0x8000, 1
NO_NEW_PRIVILEGES, CAPABILITY_VERSION = 38, 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def call(what, result):
    """The result of a system call, or OSError."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, kind=None, flags=0, options=None):
    text = [None if value is None else os.fsencode(value) for value in (source, target, kind, options)]
    call(f"mount {target}", libc.mount(*text[:3], ctypes.c_ulong(flags), text[3]))


def bind(source, target):
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


def isolate(visible, hidden, folder):
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


def drop_privileges():
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


def limit(seconds, memory, file_size, processes):
    """Hard limits: processor time (s), memory and file size (bytes), processes (None: the user's own stays)."""
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_AS": memory, "RLIMIT_FSIZE": file_size, "RLIMIT_NOFILE": 128,
              "RLIMIT_CORE": 0, "RLIMIT_NPROC": processes}
    for name, value in limits.items():
        if value is not None and hasattr(resource, name):
            try:
                resource.setrlimit(getattr(resource, name), (value, value))
            except (ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
                pass
