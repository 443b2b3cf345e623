"""Code digests change with the code that a script uses, and with no other."""

import pytest

from augbench.core import code_digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "augbench"
    (root / "stage").mkdir(parents=True)
    (root / "templates").mkdir()
    (root / "resources").mkdir()
    for name, text in {
        "__init__.py": "",
        "core.py": "",
        "stage/__init__.py": "",
        "stage/a.py": "def f():\n    from augbench.stage.b import g\n",
        "stage/b.py": "import augbench.core\n",
        "stage/page.py": "from augbench.core import pages\n\ndef f():\n    pages.template('page.html.j2')\n",
        "stage/logs.py": "from augbench.stage import b\n",
        "stage/named.py": "from augbench.core import package_data\n\nNAMES = package_data.bundled('names.csv')\n",
        "resources/names.csv": "class\n",
        "templates/page.html.j2": "{% include 'part.html.j2' %}",
        "templates/part.html.j2": "",
    }.items():
        (root / name).write_text(text)
    for script, text in {
        "imports_a.py": "from augbench.stage import a\n",
        "imports_core.py": "from augbench import core\n",
        "shows.py": "from augbench.stage import page\n",
        "logs.py": "from augbench.stage.logs import log_to\n",
        "names.py": "from augbench.stage import named\n",
    }.items():
        (tmp_path / script).write_text(text)
    monkeypatch.setattr(code_digest, "PACKAGE", root)
    monkeypatch.setattr(code_digest, "WITHOUT_RESULTS", {"stage.logs"})
    code_digest._imports.cache_clear()
    return root


def names(package, script):
    return [str(file.relative_to(package)) for file in code_digest.modules_of(package.parent / script)]


def test_imports_are_followed_transitively_also_inside_functions(package):
    both = ["__init__.py", "core.py", "stage/__init__.py", "stage/a.py", "stage/b.py"]
    assert names(package, "imports_a.py") == both
    assert names(package, "imports_core.py") == ["__init__.py", "core.py"]


def test_templates_are_followed_through_their_includes(package):
    assert names(package, "shows.py")[-2:] == ["templates/page.html.j2", "templates/part.html.j2"]


def test_data_of_the_package_count_where_they_are_named(package):
    assert names(package, "names.py")[-3:] == ["resources/names.csv", "stage/__init__.py", "stage/named.py"]


def test_what_changes_no_result_does_not_count(package):
    assert "stage/logs.py" not in names(package, "logs.py")


def test_an_edit_changes_the_digests_of_what_uses_it_and_no_other(package):
    scripts = sorted(package.parent.glob("*.py"))
    expected = {
        "stage/b.py": ["imports_a.py"],
        "core.py": ["imports_a.py", "imports_core.py", "names.py", "shows.py"],
        "resources/names.csv": ["names.py"],
        "templates/part.html.j2": ["shows.py"],
        "stage/logs.py": [],
    }
    (package / "stage/page.py").write_text("from augbench.core import pages\n\npages.template('page.html.j2')\n")
    for edited, users in expected.items():
        before = {script.name: code_digest.digest(script) for script in scripts}
        with open(package / edited, "a") as file:
            file.write("\n# edited\n")
        code_digest._imports.cache_clear()
        code_digest._line.cache_clear()
        assert [script.name for script in scripts if code_digest.digest(script) != before[script.name]] == users
