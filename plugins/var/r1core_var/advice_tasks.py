"""Names in `plugins.var.advice.tasks` that no record can have, told before a run: their answers would be free.

Only as far as a recipe tells. The tasks of a data set that a domain or plugin provides, and names that stand in a
column of one's own files and nowhere in the recipe, are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from r1core import api
from r1core_var.advice_config import AdviceConfig

KEY = "plugins.var.advice.tasks"
LONE = "own"  # what r1core calls the task of one's own files without a column of tasks


def problems(config: AdviceConfig, plan: api.Plan) -> Iterator[api.Problem]:
    """What is wrong with the names: an error where no record can be of them, a warning where one looks misspelt."""
    data = plan.recipe.get("data")
    if not isinstance(data, dict) or not data.get("files") or not config.tasks:
        return
    where = plan.origins.get(KEY, KEY)
    columns, listed = data.get("columns"), data.get("tasks")
    if not (isinstance(columns, dict) and columns.get("task")):
        if LONE in config.tasks:
            return
        found = f"{KEY} = {list(config.tasks)}, and no column that names each record's task: none is held to the limit"
        fix = "remove `tasks`, then every request is held; or set data.columns.task"
        yield api.Problem(where, found, "no names, or a column of tasks", fix)
        return
    names = [str(one["name"]) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    for name in config.tasks:
        near = [] if name in names else get_close_matches(name, names, n=1)
        if near:
            found = f"{KEY}: {name!r} is no task that data.tasks describes"
            expected, fix = f"one of {', '.join(names)}", f"did you mean {near[0]!r}?"
            yield api.Problem(where, found, expected, fix, severity="warning")
