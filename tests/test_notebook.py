import importlib.machinery
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def script():
    loader = importlib.machinery.SourceFileLoader("notebook_script", str(ROOT / "scripts" / "notebook"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("notebook_script", loader))
    loader.exec_module(module)
    return module


def test_the_committed_notebook_is_what_the_script_makes_of_the_tutorial():
    assert NOTEBOOK.read_text(encoding="utf-8") == script().page(), "run scripts/notebook"


def test_every_command_and_every_block_of_python_of_the_tutorial_is_in_the_notebook():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for language, block in script().BLOCK.findall(text):
        if not block.startswith(("tensorboard", "mkdir")):
            wanted = block.rstrip() if language == "python" else f"%%bash -e\n{block.rstrip()}"
            assert wanted in code
    assert 'os.environ["MINARI_DATASETS_PATH"] = f"{os.getcwd()}/data"' in code[0]
    assert code[0].splitlines()[2:4] == ['os.makedirs("norms", exist_ok=True)', 'os.chdir("norms")']


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs_from_the_first_cell_to_the_last(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "norms" / "runs" / "channel" / "DONE").exists()
