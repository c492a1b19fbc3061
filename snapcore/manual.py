"""The man page and the shell completions, from the table that `--help` prints.

python3 -m snapcore.manual man|bash|zsh|fish
"""

from __future__ import annotations

import sys

from snapcore import __version__
from snapcore.usage import COMMON, VERBS, Option

STATUSES = (
    (0, "done; for status: a transaction is open; for diff: equal"),
    (1, "another error; for diff: differs"),
    (2, "the command line makes no sense"),
    (3, "status: no transaction is open"),
    (10, "rolled back instead of kept"),
    (11, "rollback incomplete: what differs is listed, the transaction stays open"),
    (12, "a snapshot or record is corrupt, or of a newer version; nothing was changed"),
    (13, "another process holds the lock"),
    (14, "changed from outside, and the policy is fail; nothing was changed"),
    (15, "could not save; nothing was changed"),
    (16, "not the owner of the transaction"),
    (199, "not allowed in this state"),
)
FILES = (
    ("/var/lib/snapcore/open", "the record of the open transaction; without one it is not there"),
    ("/var/lib/snapcore/snapshots/NAME/files/", "the saved files, in their own tree: cp gives one back by hand"),
    ("/var/lib/snapcore/snapshots/NAME/manifest.json", "type, mode, owner, attributes and SHA-256 of each"),
    ("/var/lib/snapcore/archive/", "what the last ten rollbacks discarded"),
)
JSON = (
    ("all", "version (1), status (the exit status); where refused: error, differences (a list of lines)"),
    ("begin", "state, id, token, since, saved (number of files), kernel (whether it was saved), deadline, notes"),
    (
        "try",
        "state, id, why, attempts, undone, kernel, differences, notes, probes (a list of {probe, required, before,"
        " after, again: each {passed, words}})",
    ),
    ("extend", "state, id, deadline"),
    ("touch", "state, id, touched (a list of paths)"),
    ("commit", "state, id, notes (a list of lines)"),
    ("rollback, boot", "state, id, undone (a list of {path, what, aspects}), notes"),
    (
        "status",
        "state (none, open, rolling-back), transaction ({id, owner: {uid, pid, command}, since, label, deadline,"
        " left_s (seconds), watcher (its process, 0: none), clients, failures, last_failure, …})",
    ),
    ("diff", "differences (a list of {path, what, aspects})"),
    ("plan", "steps (a list of {action, path, interface, aspects})"),
    ("save", "snapshot ({name, label, created, serial, families, files})"),
    ("list", "snapshots (a list of the same)"),
    ("show", "snapshot, entries ({path: {type, mode, uid, gid, size, sha256, target, xattrs}})"),
    ("load", "state, changed (a list of {path, what, aspects})"),
    ("prune", "deleted (a list of names)"),
    ("install-init", "done (a list of lines)"),
)


def man_page() -> str:
    """snapcore(8), in the man macros."""
    lines = [
        f'.TH SNAPCORE 8 "" "snapcore {__version__}"',
        ".SH NAME",
        r"snapcore \- a fail-safe transaction for the network configuration of one host",
        ".SH SYNOPSIS",
        r".B snapcore \fIVERB\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        _escaped(
            "snapcore begin saves the network configuration. What is changed from then on is kept by snapcore commit,"
            " and undone by snapcore rollback, or at the next boot, before networking starts."
        ),
        ".SH VERBS",
    ]
    for verb in VERBS:
        lines += [".TP", rf".B {verb.name} \fR{_escaped(' '.join(verb.operands))}", _escaped(verb.about) + "."]
        for option in verb.options:
            lines += [".RS", *_option(option), ".RE"]
    lines.append(".SH OPTIONS")
    for option in COMMON:
        lines += _option(option)
    lines.append(".SH EXIT STATUS")
    for status, about in STATUSES:
        lines += [".TP", f".B {status}", _escaped(about)]
    lines += [".SH JSON", _escaped("--json prints one object:")]
    for verb_name, about in JSON:
        lines += [".TP", f".B {_escaped(verb_name)}", _escaped(about)]
    lines.append(".SH FILES")
    for path, about in FILES:
        lines += [".TP", f".I {_escaped(path)}", _escaped(about)]
    return "\n".join(lines) + "\n"


def _option(option: Option) -> list[str]:
    return [".TP", rf".B {_escaped(option.name)} \fI{_escaped(option.value)}\fR", _escaped(option.about)]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")


CHOICES = {
    "--policy": ("restore", "keep-external", "fail"),
    "--strategy": ("minimal", "bounce-all", "netlink"),
    "--new-devices": ("delete", "keep"),
    "--external-ports": ("keep", "restore"),
    "--confirm": ("auto", "ask", "token"),
    "--probe": ("ping:", "tcp:", "dns:", "http://", "https://", "route:default", "client", "exec:"),
    "--want": ("ping:", "tcp:", "dns:", "http://", "https://", "route:default", "client", "exec:"),
    "--init": ("systemd", "openrc", "lsb"),
}
"""How the values of some options are, or begin."""
TAKE_FILES = tuple(verb.name for verb in VERBS if "FILE..." in verb.operands)
TAKE_NAMES = tuple(verb.name for verb in VERBS if any("NAME" in name for name in verb.operands) and verb.name != "save")
"""The verbs that want the name of a snapshot that is there."""


def completion(shell: str) -> str:
    """A completion script for bash, zsh or fish."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _words(options: tuple[Option, ...]) -> str:
    return " ".join(option.name for option in options)


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _bash() -> str:
    cases = "\n".join(f'        {verb.name}) words="{_words((*verb.options, *COMMON))}" ;;' for verb in VERBS)
    choices = "\n".join(
        f'        {option}) COMPREPLY=($(compgen -W "{" ".join(values)}" -- "$word")); return ;;'
        for option, values in CHOICES.items()
    )
    return f"""# bash completion for snapcore
_snapcore() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb= words= each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $each == -* ]] || {{ verb=$each; break; }}
    done
    case $before in
        --root) COMPREPLY=($(compgen -d -- "$word")); return ;;
        --profile) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --only) COMPREPLY=($(compgen -W "$(ls /sys/class/net)" -- "$word")); return ;;
{choices}
    esac
    case $verb in
        "") words="{" ".join(verb.name for verb in VERBS)} {_words(COMMON)}" ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    case $verb in
        {"|".join(TAKE_FILES)}) COMPREPLY+=($(compgen -f -- "$word")) ;;
        {"|".join(TAKE_NAMES)}) COMPREPLY+=($(compgen -W "$(snapcore list 2>/dev/null | cut -d' ' -f1)" -- "$word")) ;;
    esac
}}
complete -F _snapcore snapcore
"""


def _zsh() -> str:
    verbs = "\n".join(f"        '{verb.name}:{_quoted(verb.about)}'" for verb in VERBS)
    common = "\n".join(f"        {_zsh_option(option)}" for option in COMMON)
    own = {verb.name: "".join(f"            {_zsh_option(o)}\n" for o in verb.options) for verb in VERBS}
    cases = "\n".join(f"        {name}) options+=(\n{options}        ) ;;" for name, options in own.items() if options)
    return f"""#compdef snapcore
_snapcore() {{
    local -a verbs options operands
    verbs=(
{verbs}
    )
    options=(
{common}
    )
    case $words[2] in
{cases}
    esac
    case $words[2] in
        {"|".join(TAKE_NAMES)}) operands=('*:snapshot:($(snapcore list 2> /dev/null | cut -d" " -f1))') ;;
        {"|".join(TAKE_FILES)}) operands=('*:file:_files') ;;
        try) operands=('*::command:_normal') ;;
    esac
    _arguments $options '1: :{{_describe verb verbs}}' $operands
}}
_snapcore "$@"
"""


def _zsh_option(option: Option) -> str:
    """As `_arguments` has it (zshcompsys(1)): brackets and colons are its own."""
    about = option.about.replace("[", "\\[").replace("]", "\\]")
    action = {"--root": "_files -/", "--profile": "_files", "--only": "_net_interfaces", "--client": "_pids"}.get(
        option.name, ""
    )
    if option.name in CHOICES:
        action = "({})".format(" ".join(CHOICES[option.name]).replace(":", "\\:"))
    value = f":{option.value}:{action}" if option.value else ""
    return f"'{'*' if option.many else ''}{option.name}[{_quoted(about)}]{value}'"


def _fish() -> str:
    lines = ["# fish completion for snapcore", "complete -c snapcore -f"]
    for verb in VERBS:
        seen = f"complete -c snapcore -n '__fish_seen_subcommand_from {verb.name}'"
        lines.append(f"complete -c snapcore -n __fish_use_subcommand -a {verb.name} -d '{_quoted(verb.about)}'")
        lines += [f"{seen} {_fish_option(option)}" for option in verb.options]
        if verb.name in TAKE_NAMES:
            lines.append(f"{seen} -a '(snapcore list 2> /dev/null | string split -f 1 \" \")'")
        if verb.name in TAKE_FILES or verb.name == "try":
            lines.append(f"{seen} -F")
    lines += [f"complete -c snapcore {_fish_option(option)}" for option in COMMON]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    values = {"--root": "(__fish_complete_directories)", "--only": "(ls /sys/class/net)"}.get(
        option.name, " ".join(CHOICES.get(option.name, ()))
    )
    value = f" -x -a '{values}'" if values else " -r -F" if option.name == "--profile" else " -x"
    return f"-l {option.name[2:]} -d '{_quoted(option.about)}'{value if option.value else ''}"


def main() -> int:
    """Prints one of them."""
    wanted = sys.argv[1:]
    if wanted == ["man"]:
        sys.stdout.write(man_page())
    elif len(wanted) == 1 and wanted[0] in ("bash", "zsh", "fish"):
        sys.stdout.write(completion(wanted[0]))
    else:
        sys.stderr.write("usage: python3 -m snapcore.manual man|bash|zsh|fish\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
