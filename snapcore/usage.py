"""The one table of verbs and options: `--help`, the man page and the completions are made from it.

(argparse would take as long to import as everything else together.)
"""

from __future__ import annotations

from snapcore.errors import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Option:
    """One option. `value` is the name of its value in help texts; '' for a switch."""

    def __init__(self, name: str, about: str, value: str = "", many: bool = False) -> None:
        self.name = name
        self.about = about
        self.value = value
        self.many = many

    @property
    def field(self) -> str:
        return self.name[2:].replace("-", "_")


class Verb:
    """One verb. `operands` are the names of its arguments in help texts, `[X]` optional, `X...` one or more."""

    def __init__(self, name: str, about: str, options: tuple[Option, ...] = (), operands: tuple[str, ...] = ()) -> None:
        self.name = name
        self.about = about
        self.options = options
        self.operands = operands


COMMON = (
    Option("--root", "work on the tree below DIR; the store is DIR/var/lib/snapcore", "DIR"),
    Option("--profile", "cover this family (a name, or a profile file); may be repeated", "NAME|FILE", many=True),
    Option("--token", "the transaction's token: shows that it is yours", "TOKEN"),
    Option("--force", "end somebody else's transaction (root), or commit after a rollback that stopped half-way"),
    Option("--json", "print one JSON object"),
    Option("--version", "print the version"),
    Option("--help", "print this"),
)

MAY_BE_EMPTY = frozenset(["--token", "--label"])

LABEL = Option("--label", "a word for people, shown by status and list", "TEXT")

RUNNING = (
    Option(
        "--strategy",
        "how a rollback brings the running host back: minimal (the default; the stack reloads what changed, then the"
        " kernel is repaired), bounce-all, or netlink (without the stack)",
        "STRATEGY",
    ),
    Option("--new-devices", "what a rollback does with devices that are new: delete (the default) or keep", "WHAT"),
    Option(
        "--external-ports",
        "what a rollback does with ports that others have plugged into a bridge: keep (the default) or restore",
        "WHAT",
    ),
    Option("--no-kernel", "files only: leave the running host as it is"),
)
"""Of the verbs that bring a running host back, and of those that open a transaction."""

SAVING = (
    Option("--kernel", "save the kernel's network state too where --root is not /; fail where that can't be done"),
    Option("--only", "a transaction about this interface; may be repeated", "IFACE", many=True),
    Option("--nft", "save the nftables rule set too"),
)
"""Of the verbs that open a transaction."""

BEGIN = (
    LABEL,
    *SAVING,
    *RUNNING,
    Option("--require-token", "ask everyone for the token, the same user too"),
    Option("--track", "save nothing now, but each file when `touch` announces its first change"),
    Option(
        "--policy",
        "what a rollback does with changes that were not announced, where some were: restore (the default),"
        " keep-external, or fail",
        "POLICY",
    ),
    Option("--timeout", "roll back after so many seconds, unless confirmed before (try: 60)", "SECONDS"),
    Option("--client-loss", "with a deadline: roll back as soon as the process that calls is gone"),
    Option("--client", "as --client-loss, with this process for the caller", "PID"),
)

TRY = (
    Option(
        "--probe",
        "must pass, unless it did not before the change either: ping:HOST[,size=BYTES], tcp:HOST:PORT,"
        " dns:NAME[@SERVER], an http: or https: URL, route:default, client (the connection that this session came by"
        " makes progress; the default with --confirm auto), exec:COMMAND; may be repeated",
        "PROBE",
        many=True,
    ),
    Option("--want", "as --probe, but only reported; may be repeated", "PROBE", many=True),
    Option(
        "--confirm",
        "who keeps the change when the probes pass: auto (nobody is asked; the default), ask (on the terminal), token"
        " (who says `snapcore confirm --token TOKEN`, from anywhere)",
        "WHO",
    ),
    Option("--attempts", "how often it is tried, each time from the old configuration (1)", "NUMBER"),
)

VERBS = (
    Verb("begin", "save the configuration and open a transaction", BEGIN),
    Verb(
        "try",
        "begin, run a command, and keep what it changed only if it ends with 0 and all probes pass in time",
        (*TRY, *BEGIN),
        ("COMMAND...",),
    ),
    Verb("touch", "announce a change to files (and, after begin --track, save them)", (), ("FILE...",)),
    Verb("commit", "keep the configuration as it is now"),
    Verb("confirm", "commit a transaction that has a deadline"),
    Verb("extend", "move the deadline of the open transaction so many seconds further", (), ("SECONDS",)),
    Verb("rollback", "give the saved configuration back", RUNNING),
    Verb("status", "tell whether a transaction is open (exit status 0) or none (3)"),
    Verb("diff", "compare with a snapshot (0: equal, 1: differs)", RUNNING[-1:], ("[NAME]", "[OTHER]")),
    Verb("plan", "print what a rollback, or a load of NAME, would do", RUNNING, ("[NAME]",)),
    Verb("boot", "roll an open transaction back; run before networking starts"),
    Verb("save", "save the configuration under a name", (LABEL,), ("NAME",)),
    Verb("list", "list the named snapshots"),
    Verb("show", "list what a snapshot (of the open transaction, or NAME) holds", (), ("[NAME]",)),
    Verb("load", "make the configuration what it was when NAME was saved", RUNNING[-1:], ("NAME",)),
    Verb("delete", "delete a named snapshot", (), ("NAME",)),
    Verb(
        "prune",
        "delete all named snapshots but the newest",
        (Option("--keep", "how many are kept (10)", "NUMBER"),),
    ),
    Verb(
        "install-init",
        "have the init system run `snapcore boot` before networking starts",
        (
            Option(
                "--init", "systemd, openrc or lsb, instead of those that are found; may be repeated", "NAME", many=True
            ),
            Option("--command", "how the init system starts snapcore, as words of a shell", "COMMAND"),
            Option("--remove", "remove what was installed"),
        ),
    ),
)

HIDDEN = (Verb("watch", "hold the deadline of a transaction", (Option("--detach", "in the background"),), ("ID",)),)
"""What snapcore itself calls."""


class Arguments:
    """A parsed command line: one field for each option, by its name."""

    def __init__(self) -> None:
        self.verb = ""
        self.operands: list[str] = []
        self.root = "/"
        self.profile: list[str] = []
        self.token = ""
        self.label = ""
        self.force = False
        self.json = False
        self.version = False
        self.help = False
        self.require_token = False
        self.track = False
        self.policy = "restore"
        self.strategy = ""
        self.new_devices = ""
        self.external_ports = ""
        self.kernel = False
        self.no_kernel = False
        self.only: list[str] = []
        self.nft = False
        self.keep = "10"
        self.init: list[str] = []
        self.command = ""
        self.remove = False
        self.timeout = ""
        self.client_loss = False
        self.client = ""
        self.probe: list[str] = []
        self.want: list[str] = []
        self.confirm = "auto"
        self.attempts = "1"
        self.detach = False


def parse(words: list[str]) -> Arguments:
    """`Usage` says what is wrong, and what would be right."""
    arguments = Arguments()
    given: list[str] = []
    verb = next((each for each in (*VERBS, *HIDDEN) if each.name == _first_operand(words)), None)
    options = {option.name: option for option in (*COMMON, *(verb.options if verb else ()))}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            given.extend(rest)
            break
        if word == "-h":
            word = "--help"
        if not word.startswith("-") or word == "-":
            given.append(word)
            continue
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None:
            raise Usage(f"option {name} is unknown{_nearest(name, options)}")
        if not option.value:
            if equals:
                raise Usage(f"option {name} takes no value")
            setattr(arguments, option.field, True)
            continue
        if not equals:
            if not rest:
                raise Usage(f"option {name} needs a value: {option.value}")
            value = rest.pop(0)
        if not value and option.name not in MAY_BE_EMPTY:  # a variable that was never set: no way to lose a deadline
            raise Usage(f"option {name} needs a value: {option.value}")
        if option.many:
            getattr(arguments, option.field).append(value)
        else:
            setattr(arguments, option.field, value)
    return _with_verb(arguments, given)


def _first_operand(words: list[str]) -> str:
    """The verb, which may stand behind common options."""
    takes_value = {option.name for option in COMMON if option.value}
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in takes_value:
            skip = True
        elif not word.startswith("-"):
            return word
    return ""


def _with_verb(arguments: Arguments, given: list[str]) -> Arguments:
    if arguments.version or (arguments.help and not given):
        return arguments
    if not given:
        raise Usage(f"which verb? {', '.join(verb.name for verb in VERBS)}; see --help")
    verb = next((each for each in (*VERBS, *HIDDEN) if each.name == given[0]), None)
    if verb is None:
        known = {each.name: each for each in VERBS}
        raise Usage(f"verb {given[0]!r} is unknown{_nearest(given[0], known)}")
    arguments.verb = verb.name
    arguments.operands = given[1:]
    needed = sum(not name.startswith("[") for name in verb.operands)
    most = float("inf") if any(name.rstrip("]").endswith("...") for name in verb.operands) else len(verb.operands)
    if not arguments.help and not needed <= len(arguments.operands) <= most:
        wanted = " ".join(verb.operands) or "no arguments"
        raise Usage(f"{verb.name} takes {wanted}; given: {' '.join(arguments.operands) or 'none'}")
    return arguments


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else f": {', '.join(known)}"


def help_text(name: str = "") -> str:
    """The help of one verb, or of the command."""
    verb = next((each for each in VERBS if each.name == name), None)
    if verb is None:
        lines = ["usage: snapcore VERB [OPTIONS] [ARGUMENTS]", ""]
        lines += [f"  {each.name:<14}{each.about}" for each in VERBS]
        lines += ["", "common options, before or after the verb:"]
        lines += [*_option_lines(COMMON), "", "man page and completions: python3 -m snapcore.manual man|bash|zsh|fish"]
        return "\n".join(lines)
    lines = [" ".join(["usage: snapcore", verb.name, "[OPTIONS]", *verb.operands]), "", verb.about, ""]
    return "\n".join([*lines, *_option_lines((*verb.options, *COMMON))])


def _option_lines(options: tuple[Option, ...]) -> list[str]:
    return [f"  {(option.name + ' ' + option.value).rstrip():<22}{option.about}" for option in options]
