"""`__all__` of every public module names exactly what the module defines for others."""

from __future__ import annotations

import ast

NOT_API = {"__init__", "__main__"}


def exported(file):
    """Return the names in `__all__`; None when there is none, [] when it is computed."""
    for node in file.tree.body:
        if isinstance(node, ast.Assign) and any(
            getattr(target, "id", "") == "__all__" for target in node.targets
        ):
            return ast.literal_eval(node.value) if isinstance(node.value, ast.List) else []
    return None


def defined(file):
    """Return the public classes, functions and constants that a module defines itself."""
    names = set()
    for node in file.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def imported(file):
    """Return what a module has from elsewhere and may hand on."""
    imports = [node for node in file.tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def classes_and_functions(file):
    """Return what others could use; a command that is registered with an `app` is reached through that."""
    return {
        node.name
        for node in file.tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not any(ast.unparse(decorator).startswith("app.") for decorator in node.decorator_list)
    }


def is_public(file):
    return file.path.stem not in NOT_API and not any(part.startswith("_") for part in file.module.split("."))


def wrong_exports(files):
    """A class or function that is not exported is private and named so; constants may be for the module alone."""
    found = []
    for file in files:
        if not is_public(file):
            continue
        names = exported(file)
        if names is None:
            found.append(f"{file}: no __all__")
            continue
        known = defined(file) | imported(file)
        found += [f"{file}: {name} is in __all__ but not there" for name in set(names) - known]
        missing = classes_and_functions(file) - set(names)
        found += [f"{file}: {name} is public but not in __all__" for name in sorted(missing)]
    return found


def test_exports(sources):
    assert wrong_exports(sources) == []


def test_wrong_exports_are_found(fake):
    assert wrong_exports([fake("collectors.x", "def f(): ...")])
    assert wrong_exports([fake("collectors.x", "__all__ = ['f', 'g']\ndef f(): ...")])
    assert wrong_exports([fake("collectors.x", "__all__ = []\nclass F: ...")])
    assert not wrong_exports([fake("collectors.x", "__all__ = ['f']\ndef f(): ...\ndef _g(): ...")])
    assert not wrong_exports([fake("collectors._x", "def f(): ...")])


def test_names_of_the_package_can_be_imported():
    import collectors

    for name in collectors.__all__:
        assert getattr(collectors, name) is not None
    assert set(collectors.__all__) <= set(dir(collectors))
