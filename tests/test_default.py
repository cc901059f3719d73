"""What `python -m experiments` does without a command."""

import pytest

from experiments.config.errors import ConfigError
from experiments.studies import default, engine, report
from experiments.studies.study import study
from experiments.training import result_lines
from tests.runs import EVIDENCE
from tests.test_studies import lines_of


def test_the_default_jobs_radii_are_those_that_its_study_chose():
    what = study("parameterization")
    choices = engine.choose(what, result_lines.read(EVIDENCE, what.kind)[0])
    for name, rho in default.CHOSEN.items():
        assert choices[default.AS_IS, f"{name}, rho carried over"] == {"rho": rho}


def test_the_default_job_trains_each_method_on_both_networks_and_fills_a_readme(tmp_path):
    what, choices = default.job()
    runs = engine.finals(what, choices)
    assert len(runs) == 2 * 4 * 5
    assert {run.parameterization for run in runs} == {"as is", "layer"}
    rows = report.analyse(what, lines_of(runs, lambda run: 80.0 + run.seed), choices)
    assert default.table(rows).count("82.00 ± 1.58") == 8
    records = lines_of(runs, lambda run: 80.0 + run.seed)
    records = [record | dict(run_id=str(n)) for n, record in enumerate(records)]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{default.BEGIN}\nold\n{default.END}\nafter\n")
    result_lines.replace(tmp_path, records[:-1], "results.jsonl")
    with pytest.raises(ConfigError, match="holds 39 of the default job's 40 runs"):
        default.write_readme(tmp_path, readme)
    result_lines.replace(tmp_path, records, "results.jsonl")
    default.write_readme(tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| ASAM, every leaf, eta 0 |" in text and "40 runs" in text
