"""Tokeniser for PTX text."""

from __future__ import annotations

import re
from typing import Any

from .errors import ParseError

_TOKEN = re.compile(
    r"""
   (?P<skip>\s+|//[^\n]*|/\*.*?\*/)
 | (?P<str>"(?:[^"\\]|\\.)*")
 | (?P<flt>0[fF][0-9A-Fa-f]{8}(?![0-9A-Za-z_])|0[dD][0-9A-Fa-f]{16}(?![0-9A-Za-z_]))
 | (?P<dec>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
 | (?P<int>0[xX][0-9A-Fa-f]+U?|0[bB][01]+U?|\d+U?)
 | (?P<word>[.%$A-Za-z_][\w$.%]*(?:::[\w$.%]+)*)
 | (?P<punct>[{}\[\]()<>,;:@!|=+\-*/~&^?])
""",
    re.X | re.S,
)


class Token:
    __slots__ = ("end", "kind", "line", "start", "text")

    def __init__(self, kind: str, text: str, line: int, start: int, end: int) -> None:
        self.kind, self.text, self.line, self.start, self.end = kind, text, line, start, end

    def __repr__(self):
        return f"{self.kind}:{self.text}@{self.line}"


def tokenize(src: str) -> list:
    """Split ``src`` into tokens; comments and blanks are dropped."""
    out, pos, line, n = [], 0, 1, len(src)
    match = _TOKEN.match
    while pos < n:
        m = match(src, pos)
        if m is None:
            raise ParseError(f"PTX line {line}: unexpected character {src[pos]!r}")
        kind, text, end = m.lastgroup or "", m.group(), m.end()
        if kind == "word" and text[0] == "." and "." in text[1:]:
            at = pos  # ".reg.b32" is two words
            for piece in text[1:].split("."):
                out.append(Token(kind, "." + piece, line, at, at + len(piece) + 1))
                at += len(piece) + 1
        elif kind != "skip":
            out.append(Token(kind, text, line, pos, end))
        line += text.count("\n")
        pos = end
    return out


class TokenStream:
    """A cursor over the tokens of a PTX text."""

    def __init__(self, src: str) -> None:
        self.src = src
        self.toks = tokenize(src)
        self.i = 0

    def peek(self, k: int = 0) -> Any:
        j = self.i + k
        return self.toks[j] if j < len(self.toks) else None

    def next(self) -> Token:
        t = self.peek()
        if t is None:
            raise ParseError("unexpected end of PTX text")
        self.i += 1
        return t

    def expect(self, text: str) -> Token:
        t = self.next()
        if t.text != text:
            raise ParseError(f"PTX line {t.line}: expected {text!r}, found {t.text!r}")
        return t

    def accept(self, text: str) -> bool:
        t = self.peek()
        if t is not None and t.text == text:
            self.i += 1
            return True
        return False

    def err(self, msg: str, tok: Token | None = None) -> ParseError:
        tok = tok or self.peek()
        return ParseError(f"PTX line {tok.line if tok else '?'}: {msg}")

    def intval(self, tok: Token | None = None) -> int:
        neg = False
        if tok is None:
            if self.accept("-"):
                neg = True
            tok = self.next()
        s = tok.text.rstrip("U")
        try:
            if s[:2] in ("0x", "0X"):
                v = int(s, 16)
            elif s[:2] in ("0b", "0B"):
                v = int(s, 2)
            elif len(s) > 1 and s[0] == "0":
                v = int(s, 8)
            else:
                v = int(s)
        except ValueError:
            raise self.err(f"bad integer {tok.text!r}", tok) from None
        return -v if neg else v

    def skip_to_semicolon(self) -> None:
        while self.next().text != ";":
            pass

    def skip_section(self) -> None:
        while self.next().text != "{":
            pass
        depth = 1
        while depth:
            t = self.next().text
            depth += (t == "{") - (t == "}")

    def skip_parens(self) -> None:
        self.expect("(")
        d = 1
        while d:
            t = self.next().text
            d += (t == "(") - (t == ")")
