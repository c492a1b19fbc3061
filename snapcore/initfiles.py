"""`install-init`: puts the boot hook where an init system finds it, and takes it away again."""

from __future__ import annotations

import errno
import os
import shlex
import sys

from snapcore import files
from snapcore.errors import SnapcoreError, Usage
from snapcore.files import join, raw, split
from snapcore.profiles import read_resource
from snapcore.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from snapcore.files import Tree


class Init(NamedTuple):
    """Where one init system wants its file."""

    source: str
    target: str
    mode: int
    link: str
    """A link that switches the hook on; '' where a program does (`enable`)."""
    enable: tuple[str, ...]
    """Programs that switch it on; the first one that is there is run."""
    signs: tuple[str, ...]
    """A host that has one of these has this init system."""


INITS = {
    "systemd": Init(
        "snapcore.service",
        "etc/systemd/system/snapcore.service",
        0o644,
        "etc/systemd/system/sysinit.target.wants/snapcore.service",
        (),
        ("lib/systemd/system", "usr/lib/systemd/system"),
    ),
    "openrc": Init(
        "snapcore.openrc",
        "etc/init.d/snapcore",
        0o755,
        "etc/runlevels/boot/snapcore",
        (),
        ("sbin/openrc-run", "usr/sbin/openrc-run"),
    ),
    "lsb": Init(
        "snapcore.lsb",
        "etc/init.d/snapcore",
        0o755,
        "",
        ("update-rc.d snapcore defaults", "chkconfig --add snapcore", "insserv snapcore"),
        ("etc/init.d", "etc/rc.d/init.d"),
    ),
}


def install(root: str, wanted: Sequence[str], command: str) -> list[str]:
    """Installs the hook for the init systems that are there (or `wanted`); what was done, one line each."""
    tree = files.Tree(root)
    try:
        done = []
        for name in _chosen(tree, wanted):
            init = INITS[name]
            content = read_resource(f"init/{init.source}").replace("@COMMAND@", command)
            target = _put(tree, init.target, content.encode(), init.mode)
            done.append(f"installed /{target}")
            if init.link:
                done.append(f"enabled by /{_link(tree, init.link, '/' + target)}")
            else:
                done.append(_enable(root, init))
        return done
    finally:
        tree.close()


def remove(root: str) -> list[str]:
    """Removes every hook that `install` may have installed; what was done, one line each."""
    tree = files.Tree(root)
    done = []
    try:
        for path in dict.fromkeys(path for init in INITS.values() for path in (init.link, init.target) if path):
            real = join(tree.resolve(split(path)[0])[0], split(path)[1])
            try:
                folder, name = tree.above(real)
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    continue
                raise
            os.fsync(folder)
            done.append(f"removed /{real}")
        return done
    finally:
        tree.close()


def default_command(root: str) -> str:
    """How an init system starts snapcore, as words of a shell: the program that runs now."""
    if os.path.abspath(root) != "/":
        return "/usr/bin/snapcore"
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program).startswith("snapcore") and os.access(program, os.X_OK) and os.path.isfile(program):
        return shlex.quote(program)
    where = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    start = f"import sys; sys.path.insert(0, {where!r}); from snapcore.cli import main; sys.exit(main())"
    return f"{shlex.quote(sys.executable)} -I -c {shlex.quote(start)}"


def _chosen(tree: Tree, wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in INITS:
            raise Usage(f"--init {name}: {', '.join(INITS)}")
    found = list(wanted) or [name for name, init in INITS.items() if any(_exists(tree, path) for path in init.signs)]
    if not found:
        raise SnapcoreError(f"no init system was found; name one: --init {'|'.join(INITS)}")
    if "openrc" in found and "lsb" in found and not wanted:
        found.remove("lsb")  # one name in /etc/init.d serves one of them
    return found


def _exists(tree: Tree, path: str) -> bool:
    try:
        folder, name = tree.above(tree.resolve(path)[0])
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


def _put(tree: Tree, path: str, content: bytes, mode: int) -> str:
    """Writes a file in one durable step; where it really is."""
    folder, name = split(path)
    real = tree.resolve(folder)[0]
    above = tree.make_folders(real)
    files.sweep(above)
    temporary, fd = files.create_temporary(above)
    try:
        files.write_all(fd, content)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, raw(name), src_dir_fd=above, dst_dir_fd=above)
    os.fsync(above)
    return join(real, name)


def _link(tree: Tree, path: str, target: str) -> str:
    folder, name = split(path)
    real = tree.resolve(folder)[0]
    above = tree.make_folders(real)
    temporary = files.link_temporary(above, target)
    os.rename(temporary, raw(name), src_dir_fd=above, dst_dir_fd=above)
    os.fsync(above)
    return join(real, name)


def _enable(root: str, init: Init) -> str:
    """Has the host's own program order the initscripts, which a link alone does not."""
    import shutil
    import subprocess

    if os.path.abspath(root) != "/":
        return f"to be enabled there by: {' or '.join(init.enable)}"
    for command in init.enable:
        if shutil.which(command.split()[0]):
            status = subprocess.run(command.split(), check=False).returncode
            return f"enabled by {command}" if status == 0 else f"NOT enabled: {command} ended with {status}"
    return f"NOT enabled: none of {', '.join(command.split()[0] for command in init.enable)} is here"
