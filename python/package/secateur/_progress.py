"""How a run shows that it lives: a callback of the user's, tqdm where it is installed, or nothing."""

import sys


class Calls:
    """Calls `callback(kind, name, done, total)`; kind is 'prepare', 'search', 'refit', 'train', 'test' or, for a remark, 'note'."""

    def __init__(self, callback):
        self.callback, self.stage = callback, ("", "", 0)

    def begin(self, kind, name, total, done):
        self.stage = (kind, name, total)
        self.progress(done)

    def progress(self, done):
        kind, name, total = self.stage
        self.callback(kind, name, done, total)

    def end(self):
        pass

    def note(self, text):
        self.callback("note", text, 0, 0)


class Bars:
    """A bar of tqdm's for each stage."""

    def __init__(self, tqdm):
        self.tqdm, self.bar = tqdm, None

    def begin(self, kind, name, total, done):
        self.end()
        self.bar = self.tqdm(total=total, initial=done, desc=name, leave=False)

    def progress(self, done):
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def end(self):
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def note(self, text):
        self.tqdm.write(text, file=sys.stderr)


def watching(progress):
    """None: bars if tqdm is there and somebody can see them; True: bars; False: nothing; else a callback."""
    if callable(progress):
        return Calls(progress)
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if progress is True:
            raise ImportError("progress=True needs tqdm: pip install tqdm, or give a callback") from None
        return None
    return Bars(tqdm)
