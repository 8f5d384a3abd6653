"""What secateur raises. The texts are those of the command line."""


class SecateurError(Exception):
    """What all of these are."""


class SceneError(SecateurError, ValueError):
    """A scene that cannot be run, with file, line and column of each mistake. Nothing was written."""


class ArgumentError(SecateurError, ValueError):
    """An argument, or a file that it names, that cannot be used. Nothing was written."""


class ModuleError(SecateurError, ValueError):
    """A PyTorch module that cannot be taken over, or cut."""


class RunFailed(SecateurError, RuntimeError):
    """The work itself failed."""


class _WithResult:
    _ran = None

    @property
    def result(self):
        """What there is: a secateur.RunResult."""
        from secateur import RunResult

        return None if self._ran is None else RunResult._of(self._ran)


class IncompleteRun(_WithResult, SecateurError):
    """There are results, but not all that were asked for, or one that must not be shipped: see `result`."""


class Interrupted(_WithResult, KeyboardInterrupt):
    """Ctrl-C: the best candidates found by then were refitted and written, see `result`; `resume=True` goes on."""
