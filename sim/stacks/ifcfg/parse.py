"""Text of the ifcfg family -> assignments and argument lines, with the line each stands on. Pure.

RHEL's network-scripts *source* these files with a shell. Here they are read by a shell's quoting rules (POSIX
Shell Command Language, 2.2 Quoting) and never executed: whatever is no assignment is reported and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = ";&|()<>"
_SHOWN = 60  # characters of a foreign line that a message repeats


@dataclass(frozen=True)
class Message:
    """Something the reader of the output should know about a file.

    `failed`: something that the files ask for cannot be done (the exit status is then 1); otherwise it is only
    left out on purpose.
    """

    text: str
    file: str = ""
    line: int | None = None
    failed: bool = True

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: " if self.file else ""
        return place + self.text


@dataclass(frozen=True)
class Value:
    """What a name is set to, and where."""

    text: str
    file: str
    line: int


@dataclass
class _Word:
    line: int
    text: str = ""
    plain: str = ""  # the unquoted start: where the name of an assignment must stand
    quoted: bool = False  # something was quoted: `plain` has ended
    trouble: str = ""  # why it cannot be read without executing something

    def add(self, text: str, quoted: bool) -> None:
        self.text += text
        if quoted:
            self.quoted = True
        elif not self.quoted:
            self.plain += text


@dataclass
class _Command:
    line: int
    words: list[_Word] = field(default_factory=list)
    operator: str = ""  # an operator of the shell other than `;` that stands in it


class _Unterminated(Exception):
    def __init__(self, line: int, mark: str) -> None:
        super().__init__(mark)
        self.line, self.mark = line, mark


class _Lexer:
    """Shell words, command by command. `names` are looked up at the time a word is read, as a shell does."""

    def __init__(self, text: str, names: Mapping[str, Value]) -> None:
        self.text, self.names, self.at, self.line = text, names, 0, 1

    def _next(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char == "\n":
            self.line += 1
        return char

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def commands(self) -> Iterator[_Command]:
        """Raises _Unterminated at a quote that is never closed (what comes after it cannot be read)."""
        command = _Command(self.line)
        while char := self._peek():
            if char in "\n;":
                self._next()
                if command.words or command.operator:
                    yield command
                command = _Command(self.line)
            elif char in " \t":
                self._next()
            elif char == "#":
                while self._peek() not in ("\n", ""):
                    self._next()
            elif char == "\\" and self.text[self.at + 1 : self.at + 2] == "\n":
                self._next(), self._next()
            elif char in _OPERATORS:
                command.operator = command.operator or self._next()
                self.at += 1 if self._peek() == char else 0
            else:
                if not command.words:
                    command.line = self.line
                command.words.append(self._word())
        if command.words or command.operator:
            yield command

    def _word(self) -> _Word:
        word = _Word(self.line)
        while (char := self._peek()) and char not in " \t\n" and char not in _OPERATORS:
            start = self.line
            self._next()
            if char == "\\":
                escaped = self._next()
                word.add("" if escaped == "\n" else escaped, quoted=True)
            elif char == "'":
                word.add(self._until_quote(start), quoted=True)
            elif char == '"':
                self._double_quoted(word, start)
            elif char in "$`":
                self._expansion(word, char)
            else:
                word.add(char, quoted=False)
        return word

    def _until_quote(self, start: int) -> str:
        end = self.text.find("'", self.at)
        if end < 0:
            raise _Unterminated(start, "'")
        text = self.text[self.at : end]
        self.line += text.count("\n")
        self.at = end + 1
        return text

    def _double_quoted(self, word: _Word, start: int) -> None:
        word.add("", quoted=True)
        while char := self._next():
            if char == '"':
                return
            if char == "\\" and self._peek() in ("$", "`", '"', "\\", "\n"):
                escaped = self._next()
                word.add("" if escaped == "\n" else escaped, quoted=True)
            elif char in "$`":
                self._expansion(word, char)
            else:
                word.add(char, quoted=True)
        raise _Unterminated(start, '"')

    def _expansion(self, word: _Word, char: str) -> None:
        """`$NAME` and `${NAME}` are replaced by what is set above; everything else would mean executing."""
        braced = char == "$" and self._peek() == "{"
        match = _NAME.match(self.text, self.at + braced)
        if char == "$" and match and (not braced or self.text[match.end() : match.end() + 1] == "}"):
            self.at = match.end() + braced
            value = self.names.get(match.group())
            word.add(value.text if value else "", quoted=True)
        elif char == "$" and self._peek() in ("", " ", "\t", "\n", '"'):
            word.add(char, quoted=True)
        else:
            word.trouble = "`…`" if char == "`" else "${…}" if braced else f"{char}{self._peek()}…"
            self._pass_over("`" if char == "`" else {"(": ")", "{": "}"}.get(self._peek(), ""))

    def _pass_over(self, closing: str) -> None:
        """The rest of a substitution, so that its words are not taken for words of the file."""
        opening, depth, start = {")": "(", "}": "{"}.get(closing, ""), 0, self.line
        while closing and (char := self._next()):
            depth += (char == opening) - (char == closing)
            if char == closing and depth <= 0:
                return
        if closing:
            raise _Unterminated(start, opening or closing)


def read_assignments(
    text: str, file: str, names: Mapping[str, Value] | None = None
) -> tuple[dict[str, Value], list[Message]]:
    """The assignments of a file, on top of `names` (what was read before, e.g. /etc/sysconfig/network).

    Later ones win. Never raises: what cannot be read is a message with its line.
    """
    values = dict(names or {})
    messages: list[Message] = []
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        messages.append(Message("holds NUL bytes; they are left out", file, line))
        text = text.replace("\0", "")
    lexer = _Lexer(text, values)
    try:
        for command in lexer.commands():
            _assign(command, text, file, values, messages)
    except _Unterminated as error:
        told = f"the {error.mark} is never closed; nothing after it is read"
        messages.append(Message(told, file, error.line))
    return values, messages


def _assign(command: _Command, text: str, file: str, values: dict[str, Value], messages: list[Message]) -> None:
    words = command.words
    if words and words[0].text == "export" and not words[0].quoted:
        words = [word for word in words[1:] if not (_NAME.fullmatch(word.text) and not word.quoted)]
    foreign = [word for word in words if not _ASSIGNMENT.match(word.plain)]
    if foreign or command.operator:
        shown = text.split("\n")[command.line - 1].strip()
        shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
        messages.append(Message(f"{shown!r} is no assignment NAME=VALUE; left out", file, command.line))
        return
    for word in words:
        name, _, value = word.text.partition("=")
        if word.trouble:
            told = f"{name} uses {word.trouble}: files are read, never executed; left out"
            messages.append(Message(told, file, word.line))
        else:
            values[name] = Value(value, file, word.line)


def argument_lines(text: str) -> list[tuple[int, list[str]]]:
    """The lines of a route or rule file that are arguments of `ip`: (line, words).

    As `read line` in a shell: empty lines and lines that begin with `#` are left out, a backslash before a
    newline joins lines, other backslashes go; quotes and later `#` mean nothing.
    """
    found: list[tuple[int, list[str]]] = []
    start, joined = 0, ""
    for number, line in enumerate((text + "\n").split("\n"), 1):
        start = start or number
        if len(line) - len(line.rstrip("\\")) & 1:
            joined += line[:-1]
            continue
        whole = re.sub(r"\\(.)", r"\1", joined + line).strip()
        if whole and not whole.startswith("#"):
            found.append((start, whole.split()))
        start, joined = 0, ""
    return found


def is_true(value: str | None) -> bool:
    """A true boolean of /etc/rc.d/init.d/functions; anything else is not."""
    return (value or "").lower() in ("t", "y", "yes", "on", "true", "1")


def is_false(value: str | None) -> bool:
    """A false boolean of /etc/rc.d/init.d/functions; anything else (also nothing) is not."""
    return (value or "").lower() in ("f", "n", "no", "off", "false", "0")
