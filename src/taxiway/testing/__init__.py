r"""For tests of agents and pipelines, yours and ours.

- `run_stages` runs the stages of a pipeline on real git, a real ledger, real reports and the real sandbox, without Airflow.
- `ScriptedClaude` is a local HTTP server that speaks the Messages API and answers what a script says.

    def test_a_broken_link_fails_the_gate(tmp_path):
        with pytest.raises(GateFailed):
            run_stages("pipeline: p\nstages: {links: {agent: links}}", folder=tmp_path, files={"README.md": "[gone](gone.md)"})
"""

from __future__ import annotations

from taxiway.testing.scripted import Failure, Hang, ScriptedClaude, Turn, say, use
from taxiway.testing.stages import reports_of, run_stages

__all__ = ["Failure", "Hang", "ScriptedClaude", "Turn", "reports_of", "run_stages", "say", "use"]
