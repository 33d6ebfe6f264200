"""The errors that the command line prints as one clear line. Light: every verb imports this."""

from __future__ import annotations


def line_of(error: Exception, at: int = 0) -> str:
    """A line of what a library's error says, the first one or the one at `at`; others tell where it was raised."""
    return str(error).strip().splitlines()[at].strip()


class R1Error(Exception):
    """Base of every error that the CLI prints as one clear line instead of a traceback."""

    exit_code = 1


class UserError(R1Error):
    """The user's input is wrong: exit code 2.

    Parameters
    ----------
    message : what is wrong, on one line, naming the file, key or row.
    fix : what to type or change, on one line.
    """

    exit_code = 2

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class PluginError(R1Error):
    """A component of a plugin raised; carries the plugin's and the hook's name and chains the cause."""

    def __init__(self, plugin: str, hook: str, message: str) -> None:
        super().__init__(f"plugin {plugin!r} failed in hook {hook!r}: {message}")
        self.plugin, self.hook, self._message = plugin, hook, message

    def __reduce__(self) -> tuple[type[PluginError], tuple[str, str, str], dict[str, object]]:
        return PluginError, (self.plugin, self.hook, self._message), self.__dict__  # errors travel between processes
