"""Write the tables of docs/troubleshooting.md: every error and warning of the pack, read from its source.

Usage: python -m scripts.error_table

Values in a message appear as {NAME}. A text that is present only sometimes appears as if it were always present.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
ERRORS = REPOSITORY / "latentsync" / "errors.py"
START, END = "<!-- errors: start (python -m scripts.error_table) -->", "<!-- errors: end -->"

STAGES = {
    "Video": ("latentsync/video/",),
    "Audio": ("latentsync/audio/",),
    "Faces": ("latentsync/faces/",),
    "Model files": ("latentsync/weights/", "latentsync/models/"),
    "Sampling": ("latentsync/sampling/",),
    "Score": ("latentsync/scoring/",),
    "Output": ("latentsync/compositing/", "latentsync/output/"),
    "Nodes": ("nodes/",),
    "Command line": ("latentsync/cli/",),
    "Any stage": ("latentsync/",),
}
"""Heading -> folders, the first that matches."""

REMEDIES = re.compile(
    "(Allow|Ask|Check|Choose|Close|Connect|Convert|Copy|Create|Cut|Delete|Detect|Disconnect|Divide|Download|Enter|Export|Free"
    "|If|Increase|Install|Leave|Load|Lower|Make|Move|On|Open|Or|Please|Provide|Put|Raise|Reduce|Remove|Rename|Resize"
    "|Restart|Run|Save|Select|Set|Shorten|Solve|Split|Start|Switch|Take|To|Trim|Try|Turn|Unset|Update|Use|Wait|Widen) "
)
"""The beginning of a sentence that says what to do."""

NUMBERS = frozenset(
    {"channels", "collapsed", "count", "expected", "frame", "frame_count", "frames", "height", "i", "index", "max"}
    | {"min", "num_wrong", "number", "rate", "shape", "size", "size_bytes", "sum", "width"}
)
MIN_LETTERS = 12  # of the fixed text. Shorter texts only put a file name before another error.
MAX_DEPTH = 20  # of expressions in expressions

Texts = list[str]


@dataclass(frozen=True)
class Message:
    """One error or warning. `values` is the source of each value in the texts of its function, such as `{name!r}`."""

    kind: str
    text: str
    place: str
    values: tuple[str, ...]

    @property
    def stage(self) -> str:
        return next(stage for stage, folders in STAGES.items() if self.place.startswith(folders))

    @property
    def parts(self) -> tuple[str, str]:
        """What happened, and what to do."""
        sentences = re.split(r"(?<=[.)}])\s+(?=[A-Z\"{])|\n", self.text)
        for i, sentence in enumerate(sentences):
            if i and REMEDIES.match(sentence):
                return " ".join(sentences[:i]), " ".join(sentences[i:])
        return " ".join(sentences), ""

    @property
    def advice(self) -> str:
        """What to do, also for a text that does not say it."""
        return self.parts[1] or (
            "The run continues." if self.kind == "warning" else "Search for the text after the colon."
        )


@dataclass(frozen=True)
class Module:
    """A source file. `scopes` gives the function around each node."""

    place: str
    tree: ast.Module
    scopes: Mapping[ast.AST, ast.FunctionDef]


class Reader:
    """Reads the texts of expressions in the source. Knows the constants and the text functions of all modules."""

    def __init__(self, modules: list[Module]) -> None:
        self._constants: dict[str, ast.expr] = {}
        self._functions: dict[str, tuple[Module, ast.FunctionDef]] = {}
        for module in modules:
            self._constants |= constants(module)
            self._functions |= {name: (module, function) for name, function in text_functions(module).items()}

    def texts(  # noqa: PLR0911 - one for each kind of expression
        self, node: ast.AST | None, module: Module, known: Mapping[str, Texts], depth: int = 0
    ) -> Texts:
        """All texts that an expression can have. Empty if they are known only when the program runs."""
        if depth > MAX_DEPTH:
            return []
        match node:
            case ast.Constant(value=str() | int() | float() as value):
                return [str(value)]
            case ast.JoinedStr(values=values):
                return joined([self.texts(value, module, known, depth + 1) for value in values])
            case ast.FormattedValue(value=value):
                return self.texts(value, module, known, depth + 1) or ["{" + placeholder(node) + "}"]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                sides = [self.texts(side, module, known, depth + 1) for side in (left, right)]
                return [added(*choice) for choice in product(*sides)]
            case ast.IfExp(body=body, orelse=other):
                sides = [self.texts(side, module, known, depth + 1) for side in (body, other)]
                return [text for side in sides for text in side if text] if all(sides) else []
            case ast.Name(id=name) if name in known:
                return known[name]
            case ast.Name() | ast.Attribute():
                return self._named(node, module, known, depth)
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as between)), args=[ast.List(elts=parts)]):
                fixed = [part for part in parts if not isinstance(part, ast.Starred)]
                return [
                    between.join(choice)
                    for choice in product(*(self.texts(p, module, known, depth + 1) for p in fixed))
                ]
            case ast.Call(func=ast.Name(id=name), args=arguments):
                home, function = self._function(name, module)
                if function is not None:
                    values = [self.texts(argument, module, known, depth + 1) for argument in arguments]
                    names = [parameter.arg for parameter in function.args.args]
                    bound = dict(zip(names, values, strict=False))
                    return self.texts(returned(function), home, bound, depth + 1)
        return []

    def _named(self, node: ast.Name | ast.Attribute, module: Module, known: Mapping[str, Texts], depth: int) -> Texts:
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name.isupper():
            value = constants(module).get(name) or self._constants.get(name)
            return self.texts(value, module, {}, depth + 1)
        if isinstance(node, ast.Name) and node in module.scopes:
            values = {
                assignment.lineno: assignment.value
                for assignment in ast.walk(module.scopes[node])
                if isinstance(assignment, ast.Assign)
                and ast.unparse(assignment.targets[0]) == name
                and assignment.lineno < node.lineno
            }
            return self.texts(values[max(values)], module, known, depth + 1) if values else []
        return []

    def _function(self, name: str, module: Module) -> tuple[Module, ast.FunctionDef | None]:
        own = text_functions(module)
        return (module, own[name]) if name in own else self._functions.get(name, (module, None))


def added(left: str, right: str) -> str:
    """The sum of two whole numbers, or two texts joined."""
    return str(int(left) + int(right)) if left.isdecimal() and right.isdecimal() else left + right


def joined(parts: list[Texts]) -> Texts:
    """Every combination of the alternatives of each part. Empty if a part is unknown."""
    return ["".join(choice) for choice in product(*parts)]


def returned(function: ast.FunctionDef) -> ast.expr | None:
    """The value of a function with a single `return`."""
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    return returns[0].value if len(returns) == 1 else None


def text_functions(module: Module) -> dict[str, ast.FunctionDef]:
    """The functions of a module that return a text."""
    return {
        node.name: node
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "str"
    }


def constants(module: Module) -> dict[str, ast.expr]:
    """The constants of a module whose value is written out."""
    return {
        node.targets[0].id: node.value
        for node in module.tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, (ast.Constant, ast.JoinedStr))
    }


def placeholder(field: ast.FormattedValue) -> str:
    """A name in capitals for a value. N is a number."""
    node: ast.AST = field.value
    while isinstance(node, (ast.Call, ast.Subscript, ast.BoolOp)):
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.BoolOp):
            node = node.values[0]
        elif isinstance(node.func, ast.Name) and node.func.id in ("str", "float", "int") and node.args:
            node = node.args[0]
        elif isinstance(node.func, ast.Name) and node.func.id == "len":
            return "N"
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            return "LIST"
        else:
            node = node.func
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self" and node.attr in ("name", "path"):
        node = node.value
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and node.attr not in {"name", *NUMBERS}:
        return node.attr.strip("_").upper() if node.attr.startswith("_") else "VALUE"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    if field.format_spec is not None or not name or name in NUMBERS:
        return "N"
    return name.strip("_").replace("strerror", "reason").removesuffix("_of").replace("_", " ").upper()


def messages() -> list[Message]:
    """Every error and warning, file by file.

    Raises:
        ValueError: the text of an error cannot be read from the source.
    """
    modules = [read(path) for root in ("latentsync", "nodes") for path in sorted((REPOSITORY / root).rglob("*.py"))]
    reader, classes = Reader(modules), set(error_classes())
    found: dict[tuple[str, str], Message] = {}
    for module in modules:
        for kind, expression in expressions(module, classes):
            texts = reader.texts(expression, module, {})
            if not texts:
                raise ValueError(f"{module.place}:{expression.lineno}: the text of this {kind} cannot be read.")
            around = module.scopes.get(expression, expression)
            values = tuple(ast.unparse(node) for node in ast.walk(around) if isinstance(node, ast.FormattedValue))
            for text in texts:
                if kind == "warning":
                    text = re.sub(r"%[-.\d]*[sdgfr]", "{VALUE}", text)  # noqa: PLW2901
                message = Message(kind, text, f"{module.place}:{expression.lineno}", values)
                if len(re.sub(r"\{.*?\}|[^a-z]", "", text)) >= MIN_LETTERS:
                    found.setdefault((message.stage, text), message)
    return list(found.values())


def read(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]  # outer ones first
    scopes = {node: function for function in functions for node in ast.walk(function)}
    return Module(path.relative_to(REPOSITORY).as_posix(), tree, scopes)


def expressions(module: Module, classes: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """The kind and the text of every error and warning of a module, as expressions."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Yield) and node in module.scopes and module.scopes[node].name == "warnings":
            if node.value is not None:
                yield "warning", node.value
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func)
            parameters = [argument.arg for argument in module.scopes[node].args.args] if node in module.scopes else []
            if name in classes and isinstance(node.args[0], ast.IfExp):  # the text of another error, or a new text
                yield name, node.args[0].orelse
            elif name in classes:
                yield name, node.args[0]
            elif name in parameters and name == "error":  # a function that raises the error class of its caller
                yield "LatentSyncError", node.args[0]
            elif name == "log.warning":
                yield "warning", node.args[0]


def error_classes() -> dict[str, str]:
    """Every error class of the pack, and its meaning."""
    tree = ast.parse(ERRORS.read_text(encoding="utf-8"))
    return {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}


def tables() -> str:
    """The generated part of the page, in Markdown."""
    lines: list[str] = []
    found = messages()
    for stage in STAGES:
        rows = [(message.parts[0], message.advice) for message in found if message.stage == stage]
        lines += ["", f"### {stage}", "", "| message | what to do |", "|---|---|"]
        lines += [f"| {cell(problem)} | {cell(advice)} |" for problem, advice in rows]
    lines += ["", "### Classes, for programs", "", "| class | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {cell(meaning)} |" for name, meaning in error_classes().items()]
    return "\n".join([*lines, ""])


def cell(text: str) -> str:
    """A text for a table cell: values in italics."""
    escaped = re.sub(r"([|<*])", r"\\\1", " ".join(text.split()))
    return re.sub(r"\{(.*?)\}", r"*\1*", escaped)


def page_with(generated: str) -> str:
    """The page with new tables."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    return f"{before}{START}\n{generated}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with(tables()), encoding="utf-8")
