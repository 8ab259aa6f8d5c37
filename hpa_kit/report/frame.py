"""Where notebooks that were pushed before import their last cell's function from."""

from hpa_kit.report.notebook import run_report, submission_report

__all__ = ["run_report", "submission_report"]
