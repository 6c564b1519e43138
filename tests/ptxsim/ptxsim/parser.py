"""Recursive-descent parser from tokens to the classes of :mod:`ptxsim.ir`."""

from __future__ import annotations

from .errors import UnsupportedInstruction
from .ir import Function, Instr, ParsedModule, Var
from .lexer import Token
from .operands import OperandParser
from .types import TYPES


class Parser(OperandParser):
    """Parses one module; the result is in ``self.module``."""

    def __init__(self, src: str) -> None:
        super().__init__(src)
        self.module = ParsedModule()
        self.loc: tuple[int, int, int] | None = None
        self.fn: Function | None = None
        self.parse_module()

    # module level ---------------------------------------------------------------
    def parse_module(self) -> None:
        m = self.module
        linkage = set()
        while self.peek() is not None:
            t = self.next()
            w = t.text
            if w == ".version":
                m.version = self.next().text
            elif w == ".target":
                words = [self.next().text]
                while self.accept(","):
                    words.append(self.next().text)
                m.target = ",".join(words)
            elif w == ".address_size":
                if self.intval() != 64:
                    raise self.err("only 64-bit PTX is supported")
            elif w in (".visible", ".extern", ".weak", ".common"):
                linkage.add(w)
            elif w in (".entry", ".func"):
                self.parse_function(w == ".entry", t.line)
                linkage = set()
            elif w in (".global", ".const", ".shared"):
                for v in self.parse_vars(w[1:], ".extern" in linkage):
                    old = m.vars.get(v.name)
                    if old is None or not v.extern:
                        m.vars[v.name] = v
                linkage = set()
            elif w == ".file":
                self.parse_file()
            elif w == ".section":
                self.skip_section()
            elif w == ".loc":
                self.parse_loc()
            elif w in (".pragma", ".alias"):
                self.skip_to_semicolon()
            elif w == ";":
                continue
            elif t.kind == "word" and self.peek() is not None and self.peek().text == ":":
                self.next()
            else:
                raise self.err(f"unexpected {w!r} at module level", t)

    def parse_file(self) -> None:
        idx = self.intval()
        name = self.next().text.strip('"')
        second = None
        while self.accept(","):
            self.next()
        if self.peek() is not None and self.peek().kind == "str":
            second = self.next().text.strip('"')
        if second is not None:
            name = name.rstrip("/") + "/" + second
        self.module.files[idx] = name

    def parse_loc(self) -> None:
        file, line, column = self.intval(), self.intval(), self.intval()
        if self.peek() is not None and self.peek().text == ",":
            # , function_name LABEL {+ off} , inlined_at f l c
            while self.accept(","):
                w = self.next().text
                if w == "function_name":
                    self.next()
                    if self.accept("+"):
                        self.next()
                elif w == "inlined_at":
                    self.intval(), self.intval(), self.intval()
        if line:
            self.loc = (file, line, column)

    # variables ------------------------------------------------------------------
    def parse_vars(self, space: str, extern: bool = False) -> list[Var]:
        """``.space [.align n] [.v2|.v4] .type name[dims] [= init], ... ;``"""
        align, vec, ty = None, 1, None
        while self.peek().text.startswith("."):
            w = self.next().text
            if w == ".align":
                align = self.intval()
            elif w in (".v2", ".v4", ".v8"):
                vec = int(w[2:])
            elif w[1:] in TYPES:
                ty = w[1:]
            elif w in (".ptr", ".const", ".global", ".shared", ".local", ".noalias"):
                continue
            elif w.startswith(".attribute"):
                self.skip_parens()
            else:
                raise self.err(f"unexpected {w!r} in a variable declaration")
        if ty is None:
            raise self.err("a variable declaration without a type")
        out = []
        while True:
            out.append(self.parse_declarator(space, ty, vec, align, extern))
            if not self.accept(","):
                break
        self.expect(";")
        return out

    def parse_declarator(
        self, space: str, ty: str, vec: int, align: int | None, extern: bool = False
    ) -> Var:
        name = self.next().text
        esize = max(1, TYPES[ty][0] // 8)
        count, is_array, unsized = vec, vec > 1, False
        while self.accept("["):
            is_array = True
            if self.accept("]"):
                unsized = True
            else:
                d = self.intval()
                count *= d
                self.expect("]")
        init = None
        if self.accept("="):
            flat: list[tuple] = []
            self.parse_init(flat)
            init, off = [], 0
            for kind, val, width in flat:
                w = width or esize
                init.append((off, w, kind, val))
                off += w
            if unsized:
                count, unsized = max(1, off // esize), False
        size = 0 if unsized else count * esize
        return Var(name, space, ty, size, align or esize * vec, init, extern, esize, is_array)

    def parse_init(self, flat: list[tuple]) -> None:
        """Initialiser values in order as (kind, value, width or None)."""
        if self.accept("{"):
            while not self.accept("}"):
                self.parse_init(flat)
                self.accept(",")
            return
        t = self.peek()
        if t.kind in ("int",) or t.text == "-":
            flat.append(("int", self.intval(), None))
        elif t.kind == "flt":
            self.next()
            flat.append(("f64" if t.text[1] in "dD" else "f32", int(t.text[2:], 16), None))
        elif t.kind == "dec":
            self.next()
            flat.append(("dec", float(t.text), None))
        elif t.kind == "word":
            self.next()
            generic = False
            name = t.text
            if name == "generic":
                generic = True
                self.expect("(")
                name = self.next().text
                self.expect(")")
            off = 0
            if self.accept("+"):
                off = self.intval()
            elif self.accept("-"):
                off = -self.intval()
            flat.append(("sym", (name, off, generic), None))
        elif self.accept("("):
            self.parse_init(flat)
            self.expect(")")
        else:
            raise self.err(f"unexpected {t.text!r} in an initialiser")

    # functions ------------------------------------------------------------------
    def parse_params(self) -> list[Var]:
        """Parenthesised parameter list, '(' already consumed."""
        out = []
        while not self.accept(")"):
            sp = self.next().text
            if sp not in (".param", ".reg"):
                raise self.err(f"expected .param, found {sp!r}")
            align, ty, ptr = None, None, False
            while self.peek().text.startswith("."):
                w = self.next().text
                if w == ".align":
                    a = self.intval()
                    if not ptr:
                        align = a
                elif w == ".ptr":
                    ptr = True
                elif w in (".global", ".const", ".shared", ".local", ".param", ".noalias"):
                    continue
                elif w[1:] in TYPES:
                    ty = w[1:]
                else:
                    raise self.err(f"unexpected {w!r} in a parameter")
            if ty is None:
                raise self.err("parameter without type")
            if sp == ".reg":
                raise UnsupportedInstruction(
                    f"PTX line {self.peek().line}: .reg function parameters"
                )
            v = self.parse_declarator("param", ty, 1, align)
            v.ptr = ptr
            out.append(v)
            self.accept(",")
        return out

    def parse_function(self, is_entry: bool, line: int) -> None:
        rets = []
        while self.peek().text == ".attribute":
            self.next()
            self.skip_parens()
        if self.accept("("):
            rets = self.parse_params()
        name = self.next().text
        f = Function(name, is_entry, rets=rets, line=line)
        if self.accept("("):
            f.params = self.parse_params()
        while True:
            t = self.peek()
            if t is None:
                break
            if t.text == ";":
                self.next()
                if name not in self.module.functions:
                    self.module.functions[name] = f
                return
            if t.text == "{":
                break
            self.next()
            if t.text in (".noreturn", ".explicitcluster", ".unique"):
                f.directives[t.text] = True
            elif t.text == ".pragma":
                self.skip_to_semicolon()
            elif t.text.startswith("."):
                vals = []
                while self.peek().kind == "int":
                    vals.append(self.intval())
                    if not self.accept(","):
                        break
                f.directives[t.text] = vals
            else:
                raise self.err(f"unexpected {t.text!r} before a function body", t)
        self.next()
        f.body = []
        self.fn = f
        self.loc = None
        self.parse_block([{}], f)
        self.fn = None
        self.module.functions[name] = f

    def parse_block(self, scopes: list[dict], f: Function) -> None:
        """Statements up to the closing brace; ``scopes`` is a list of dicts."""
        while True:
            t = self.next()
            w = t.text
            if w == "}":
                return
            if w == "{":
                self.parse_block([*scopes, {}], f)
                continue
            if w == ";":
                continue
            if t.kind == "word" and self.peek().text == ":" and not w.startswith("."):
                self.next()
                nx = self.peek().text
                if nx == ".branchtargets":
                    self.next()
                    names = [self.next().text]
                    while self.accept(","):
                        names.append(self.next().text)
                    self.expect(";")
                    f.tables[w] = names
                elif nx in (".callprototype", ".calltargets"):
                    self.parse_proto(w, f)
                else:
                    uniq = w
                    if w in scopes[-1]:
                        raise self.err(f"label {w} defined twice", t)
                    if len(scopes) > 1:
                        uniq = f"{w}@{len(f.body)}"
                    scopes[-1].setdefault("#labels", {})[w] = uniq
                    f.body.append(uniq)
                continue
            if w.startswith(".") and t.kind == "word":
                self.parse_directive(t, scopes, f)
                continue
            self.parse_instr(t, scopes, f)

    def parse_proto(self, name: str, f: Function) -> None:
        kind = self.next().text
        rets, params = [], []
        if kind == ".callprototype":
            if self.accept("("):
                rets = self.parse_params()
            self.next()
            if self.accept("("):
                params = self.parse_params()
        f.protos[name] = (rets, params)
        self.skip_to_semicolon()

    def parse_directive(self, t: Token, scopes: list[dict], f: Function) -> None:
        w = t.text
        if w == ".reg":
            ty = None
            while self.peek().text.startswith("."):
                d = self.next().text[1:]
                if d in TYPES:
                    ty = d
                else:
                    raise UnsupportedInstruction(f"PTX line {t.line}: .reg .{d}")
            while True:
                nm = self.next().text
                if self.accept("<"):
                    n = self.intval()
                    self.expect(">")
                    scopes[-1].setdefault("#ranges", []).append((nm, n, ty))
                else:
                    scopes[-1][nm] = self.new_reg(nm, ty)
                if not self.accept(","):
                    break
            self.expect(";")
        elif w in (".local", ".shared", ".param", ".global", ".const"):
            for v in self.parse_vars(w[1:]):
                scopes[-1][v.name] = v
                if w == ".param":
                    v.uid = self.uid = self.uid + 1
                key = v.name if w != ".param" else f"{v.name}#{v.uid}"
                if w in (".shared", ".global", ".const"):
                    key = v.name
                f.vars[key] = v
        elif w == ".loc":
            self.parse_loc()
        elif w == ".file":
            self.parse_file()
        elif w == ".pragma":
            self.skip_to_semicolon()
        elif w == ".section":
            self.skip_section()
        else:
            raise self.err(f"unsupported directive {w!r}", t)

    # instructions ---------------------------------------------------------------
    def parse_instr(self, t: Token, scopes: list[dict], f: Function) -> None:
        start, line = t.start, t.line
        guard = None
        if t.text == "@":
            neg = self.accept("!")
            r = self.next()
            g = self.lookup(r.text, scopes)
            if g is None:
                raise self.err(f"unknown predicate {r.text!r}", r)
            guard = (g, neg)
            t = self.next()
            if t.text == "{":  # a guarded block does not exist in PTX
                raise self.err("unexpected '{' after a guard", t)
        if t.kind != "word":
            raise self.err(f"expected an instruction, found {t.text!r}", t)
        op = t.text
        operands = []
        if self.peek().text != ";":
            while True:
                operands.append(self.parse_operand(scopes))
                if not self.accept(","):
                    # Some listings separate call pieces without commas.
                    if self.peek().text == ";":
                        break
                    raise self.err(f"unexpected {self.peek().text!r} in operands of {op}")
        e = self.expect(";")
        f.body.append(
            Instr(
                op,
                op.split("."),
                operands,
                guard,
                line,
                self.loc,
                " ".join(self.src[start : e.start].split()),
                f,
            )
        )
        f.body[-1].scopes = scopes


def parse(src: str) -> ParsedModule:
    """Parse PTX text into a :class:`ParsedModule`."""
    return Parser(src).module
