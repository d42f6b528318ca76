"""The README's training-loop example runs as it stands."""

import re
from pathlib import Path


def test_training_loop_example_runs(capsys):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    example = re.search(r"## In your training loop\s+```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len(example.strip().splitlines()) <= 12
    exec(compile(example, "README.md", "exec"), {})
    assert "tensor(" in capsys.readouterr().out
