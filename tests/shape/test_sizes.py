"""Small files, functions and classes: nobody has to hold more than this in mind."""

from __future__ import annotations

import ast

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_PUBLIC_METHODS = 12
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def long_files(files):
    return [f"{file}: {count} lines" for file in files if (count := file.text.count("\n")) > MAX_FILE_LINES]


def long_functions(files):
    return [
        f"{file}:{node.lineno}: {node.name} has {lines} lines"
        for file in files
        for node in ast.walk(file.tree)
        if isinstance(node, FUNCTIONS)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def interface_methods(files):
    """Return the methods of each interface, which a class that implements it cannot help having.

    A layer's base stands for all that its file declares: a backend that keeps positions has those methods too.
    """
    found = {}
    for file in files:
        is_base = file.module.endswith(".base")
        if is_base or file.module.startswith("collectors.interfaces."):
            classes = [node for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef)]
            everything = set().union(*map(public_methods, classes))
            found |= {node.name: everything if is_base else public_methods(node) for node in classes}
    return found


def public_methods(node):
    return {item.name for item in node.body if isinstance(item, FUNCTIONS) and not item.name.startswith("_")}


def big_classes(files, interfaces):
    found = []
    for file in files:
        if file.module.startswith("collectors.testing"):
            continue  # a contract is a class of tests: one method a rule
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
                inherited = set().union(*(interfaces.get(base, set()) for base in bases))
                own = public_methods(node) - inherited
                if len(own) > MAX_PUBLIC_METHODS:
                    found.append(f"{file}:{node.lineno}: {node.name} has {len(own)} public methods")
    return found


def test_files(sources):
    assert long_files(sources) == []


def test_functions(sources):
    assert long_functions(sources) == []


def test_classes(sources):
    assert big_classes(sources, interface_methods(sources)) == []


def test_what_is_too_big_is_found(fake):
    assert long_files([fake("x", "a = 1\n" * 401)])
    assert not long_files([fake("x", "a = 1\n" * 400)])
    assert long_functions([fake("x", "async def f():\n" + "    a = 1\n" * 50)])
    assert not long_functions([fake("x", "def f():\n" + "    a = 1\n" * 49)])
    methods = "".join(f"    def m{n}(self): ...\n" for n in range(13))
    assert big_classes([fake("x", f"class A(IThing):\n{methods}")], {})
    assert not big_classes([fake("x", f"class A(IThing):\n{methods}")], {"IThing": {"m0"}})
    assert not big_classes([fake("x", f"class A(Thing[int]):\n{methods}")], {"Thing": {"m0"}})
