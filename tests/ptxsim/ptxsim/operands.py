"""Operands of instructions: registers, constants, vectors, addresses."""

from __future__ import annotations

from typing import Any

from .errors import UnsupportedInstruction
from .ir import Addr, Group, Imm, Not, Pair, Reg, SReg, Sym, Var, Vec
from .lexer import TokenStream
from .sregs import is_special_register


class OperandParser(TokenStream):
    """The part of the parser that reads operands; ``scopes`` is a list of dicts."""

    uid = 0

    def new_reg(self, name: str, ty: Any) -> Reg:
        self.uid += 1
        return Reg(name, ty, self.uid)

    def lookup(self, name: str, scopes: list[dict]) -> Any:
        """A register or variable visible under ``name``, or None."""
        for s in reversed(scopes):
            v = s.get(name)
            if v is not None:
                return v
            for base, n, ty in s.get("#ranges", ()):
                if name.startswith(base):
                    tail = name[len(base) :]
                    if tail.isdigit() and int(tail) < n:
                        r = s[name] = self.new_reg(name, ty)
                        return r
        return None

    def parse_operand(self, scopes: list[dict]) -> Any:
        t = self.next()
        x = t.text
        if x == "{":
            items = []
            while not self.accept("}"):
                items.append(self.parse_operand(scopes))
                self.accept(",")
            return Vec(tuple(items))
        if x == "[":
            return self.parse_addr(scopes)
        if x == "(":
            items = []
            while not self.accept(")"):
                items.append(self.parse_operand(scopes))
                self.accept(",")
            return Group(tuple(items))
        if x == "!":
            return Not(self.parse_operand(scopes))
        if x == "-" or x == "+":
            v = self.parse_operand(scopes)
            if not isinstance(v, Imm):
                raise self.err("'-' before a non-constant", t)
            if x == "+":
                return v
            if v.kind == "i" or v.kind == "dec":
                return Imm(-v.value, v.kind)
            sign = 31 if v.kind == "f32" else 63
            return Imm(v.value ^ (1 << sign), v.kind)
        if x == "~":
            return Imm(~self.parse_operand(scopes).value)
        if t.kind == "int":
            return Imm(self.intval(t))
        if t.kind == "flt":
            return Imm(int(x[2:], 16), "f64" if x[1] in "dD" else "f32")
        if t.kind == "dec":
            return Imm(float(x), "dec")
        if t.kind == "word":
            r = self.lookup(x, scopes)
            if r is None and "." in x and x.startswith("%") and not is_special_register(x):
                raise UnsupportedInstruction(f"PTX line {t.line}: vector register element {x}")
            if r is None:
                if is_special_register(x):
                    r = SReg(x)
                else:
                    if x.startswith("%"):
                        raise self.err(f"unknown register {x!r}", t)
                    off = 0
                    if self.peek().text == "+":
                        self.next()
                        off = self.intval()
                    elif self.peek().text == "-" and self.peek(1).kind == "int":
                        self.next()
                        off = -self.intval()
                    r = Sym(x, off)
            elif isinstance(r, Var):
                off = 0
                if self.peek().text == "+":
                    self.next()
                    off = self.intval()
                r = Addr(r, off, ("value",))
            if self.accept("|"):
                return Pair(r, self.parse_operand(scopes))
            return r
        raise self.err(f"unexpected operand {x!r}", t)

    def parse_addr(self, scopes: list[dict]) -> Addr:
        """Inside ``[ ... ]``: base, optional offset, optional further operands."""
        base = self.parse_operand(scopes)
        off = 0
        extra = []
        while not self.accept("]"):
            if self.accept("+"):
                off += self.intval()
            elif self.accept("-"):
                off -= self.intval()
            elif self.accept(","):
                extra.append(self.parse_operand(scopes))
            else:
                raise self.err(f"unexpected {self.peek().text!r} in an address")
        if isinstance(base, Sym) and base.offset:
            off += base.offset
            base = Sym(base.name)
        if isinstance(base, Addr):  # a variable seen as operand
            off += base.offset
            base = base.base
        return Addr(base, off, tuple(extra))
