"""Leave out the buttons that lead to the repository and to Colab until the repository has a public address."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from setup_cell import PLACEHOLDER  # noqa: E402


def without_buttons(app, config):
    options = config.html_theme_options
    if options["repository_url"].startswith(PLACEHOLDER):
        for name in ("repository_url", "launch_buttons", "use_repository_button", "use_issues_button"):
            options.pop(name)


def setup(app):
    app.connect("config-inited", without_buttons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
