"""A search whose candidates are scored on a Ray cluster.

    import secateur.ray

    result = secateur.ray.run("scene.ron", "runs/first", address="auto")

The process that calls this is the head: it walks and learns, and sends each candidate to a worker. Networks and images go once to each
node. Under the scheduler Lockstep, `summary.json` is that of the same run on one machine, whichever workers there were and when. Under Async
scores count as they come, so that no actor waits for another's; what comes out depends on their order, which is saved with them.

    python -m secateur.ray scene.ron --out runs/first --address auto

does the same from a shell.
"""

import collections
import os
import pathlib
import threading
import time

from secateur import RunResult, Search, _progress
from secateur.errors import ArgumentError, Interrupted, SecateurError

# Time between two calls of the user's callback.
_TELL_EVERY_S = 0.1


def run(
    scene,
    out,
    address="auto",
    *,
    num_workers=None,
    cpus_per_worker=1,
    in_flight_per_worker=2,
    may_differ=False,
    resume=False,
    checkpoint_every_s=30.0,
    progress=None,
    threads=None,
    sets=(),
    data_root=None,
    model_root=None,
    memory=None,
    _evaluator_of=None,
):
    """Runs a scene, as secateur.run does, with its agent's candidates scored by workers on a Ray cluster; returns a RunResult.

    out: the run's directory, new or empty unless resume. address: of the cluster, as ray.init takes it ("auto", "ray://host:10001"), or
    None for a cluster of this machine alone, which ends with the run; one that the program is connected to already is used as it is.
    num_workers: None for as many as the cluster's nodes have CPUs for, following nodes that join and leave; with a number, workers that
    find no place wait, which makes an autoscaler start nodes. in_flight_per_worker: candidates that a worker has, with the one it works
    on, so that it need not wait for the head. may_differ: whether workers of another instruction set or another build of secateur may
    score; their scores can differ in the last digits, which is told as a warning.

    What was scored is saved every checkpoint_every_s seconds in `<out>.search.json`; with resume the search goes on from there, and
    without such a file it starts afresh. Controls, final refits and certificates are computed by the head, with `threads`.

    Raises what secateur.run does; Interrupted on Ctrl-C, after a last save; ArgumentError for a cluster that cannot be reached, and where
    every worker was refused; RunFailed where workers end again and again over the same candidate, or before they can score.
    """
    _check_number("num_workers", num_workers, may_be_none=True)
    _check_number("cpus_per_worker", cpus_per_worker)
    _check_number("in_flight_per_worker", in_flight_per_worker)
    out = pathlib.Path(out).absolute()
    saved = out.with_name(out.name + ".search.json")
    if not resume and saved.exists():
        raise ArgumentError(f"'{saved}' is what an earlier run had scored: go on from it with resume=True, or remove it")
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArgumentError(f"out: '{out}' is not an empty directory; name a new one or empty it")
    told = _progress.watching(progress)
    means = dict(out=out, resume=resume, threads=threads, progress=progress, sets=sets, data_root=data_root, model_root=model_root, memory=memory)
    search = Search.load(saved, scene, **means) if saved.exists() else Search(scene, **means)
    # A search that was told all before has nothing to ask.
    waiting = collections.deque(search.ask(1))
    if waiting:
        with _Connection(address):
            from secateur._fleet import Fleet

            fleet = Fleet(
                search.worker_inputs(),
                num_workers=num_workers,
                cpus_per_worker=cpus_per_worker,
                in_flight_per_worker=in_flight_per_worker,
                may_differ=may_differ,
                evaluator_of=_evaluator_of,
                note=_note(told),
            )
            saver = _Saver(search, saved, checkpoint_every_s)
            try:
                _score_all(search, fleet, waiting, told, saver)
            except KeyboardInterrupt:
                saver.save_now()
                raise Interrupted(f"what was scored is saved in '{saved}'; resume=True goes on from there") from None
            except Exception:
                saver.save_now()
                raise
            finally:
                fleet.close()
            saver.save_now()
    result = search.finish(progress)
    saved.unlink(missing_ok=True)
    return result


def _score_all(search, fleet, waiting, told=None, saver=None):
    """Hands out what the search asks and tells it what comes back, until it is done. `waiting` was asked already."""
    done, total = search.progress
    if told is not None:
        told.begin("search", "walks on the cluster", total, done)
    next_tell = 0.0
    while not search.done:
        room = fleet.room() - len(waiting)
        if room > 0:
            waiting.extend(search.ask(room))
        while waiting and fleet.room() > 0:
            fleet.submit(waiting.popleft())
        if search.done:
            break
        scored, lost = fleet.wait(0.2)
        for candidate, score in scored:
            search.tell(candidate, score)
        # In front, in their order: the search's tick waits for them.
        waiting.extendleft(reversed(lost))
        if saver is not None:
            saver.look()
        if told is not None and time.monotonic() >= next_tell:
            next_tell = time.monotonic() + _TELL_EVERY_S
            told.progress(search.progress[0])
    if told is not None:
        told.progress(search.progress[0])
        told.end()


class _Saver:
    """Saves a search now and then, beside what else is done: the file grows with the search."""

    def __init__(self, search, file, every_s):
        self._search, self._file, self._every_s = search, file, every_s
        self._due, self._thread, self._failure = time.monotonic() + every_s, None, None

    def look(self):
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._check()
        self._due = time.monotonic() + self._every_s
        self._thread = threading.Thread(target=self._save, name="secateur-save", daemon=True)
        self._thread.start()

    def save_now(self):
        if self._thread is not None:
            self._thread.join()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._search.save(self._file)

    def _save(self):
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._search.save(self._file)
        except Exception as error:
            self._failure = error

    def _check(self):
        if self._failure is not None:
            raise self._failure


class _Connection:
    """A connection to a cluster, unless there is one; it ends with what it was made for."""

    def __init__(self, address):
        self._address, self._is_ours = address, False

    def __enter__(self):
        try:
            import ray
        except ImportError:
            raise ArgumentError("secateur.ray needs Ray: pip install ray") from None
        if ray.is_initialized():
            return
        how = {"include_dashboard": False, "logging_level": "warning"}
        if self._address is not None:
            how = {"address": self._address, "logging_level": "warning"}
        if str(self._address).startswith("ray://"):
            # Ray's client takes nothing else.
            how = {"address": self._address}
        try:
            ray.init(**how)
        except (ConnectionError, TimeoutError, ValueError) as error:
            raise ArgumentError(f"address: no Ray cluster at '{self._address}' ({error}); start one with `ray start --head`, or use address=None for this machine alone") from error
        self._is_ours = True

    def __exit__(self, *_):
        import ray

        if self._is_ours:
            ray.shutdown()


def _note(told):
    if told is not None:
        return told.note
    return lambda text: None


def _check_number(name, value, *, may_be_none=False):
    if value is None and may_be_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name}: expected a whole number of at least 1{', or None' if may_be_none else ''}, got {value!r}")


def _main(arguments=None):
    import argparse
    import signal
    import sys

    parser = argparse.ArgumentParser(
        prog="python -m secateur.ray",
        description="Runs a scene with its candidates scored by workers on a Ray cluster.",
        epilog="The run's directory is that of `secateur run`. With --resume it goes on from what was scored, and starts afresh where nothing was.",
    )
    parser.add_argument("scene", metavar="SCENE.ron")
    parser.add_argument("--out", required=True, metavar="DIR", help="run directory; new or empty unless --resume")
    parser.add_argument("--address", default="auto", help="of the cluster: auto, HOST:6379, ray://HOST:10001, or 'local' for this machine alone [auto]")
    parser.add_argument("--workers", type=int, metavar="N", help="workers [as many as the cluster's nodes have CPUs for]")
    parser.add_argument("--cpus-per-worker", type=int, default=1, metavar="N", help="CPUs, and threads, of a worker [1]")
    parser.add_argument("--in-flight", type=int, default=2, metavar="N", help="candidates that a worker has at a time [2]")
    parser.add_argument("--may-differ", action="store_true", help="take scores of workers with other instruction sets or builds, too")
    parser.add_argument("--resume", action="store_true", help="go on from what was scored")
    parser.add_argument("--checkpoint-every", type=float, default=30.0, metavar="SECONDS", help="seconds between two saves of what was scored [30]")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the scene; may be repeated")
    parser.add_argument("--data-root", metavar="DIR")
    parser.add_argument("--model-root", metavar="DIR")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the head [one for each core]")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the results")
    given = parser.parse_args(arguments)

    def terminated(number, frame):
        raise KeyboardInterrupt

    # As Slurm and Kubernetes end what they need the place of.
    signal.signal(signal.SIGTERM, terminated)
    try:
        result = run(
            given.scene,
            given.out,
            None if given.address == "local" else given.address,
            num_workers=given.workers,
            cpus_per_worker=given.cpus_per_worker,
            in_flight_per_worker=given.in_flight,
            may_differ=given.may_differ,
            resume=given.resume,
            checkpoint_every_s=given.checkpoint_every,
            sets=given.set,
            data_root=given.data_root,
            model_root=given.model_root,
            threads=given.threads,
            progress=False if given.quiet else _Lines(),
        )
    except SecateurError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}", file=sys.stderr)
        return 130
    _show(result)
    return 0


def _show(result: RunResult):
    for task in result.tasks:
        accuracy = "" if task.accuracy is None else f", {100 * task.accuracy:.2f} % on the test images"
        print(f"{task.name}: {task.macs} of {task.summary['original']['macs']} MACs{accuracy}: {os.fspath(task.model)}")


class _Lines:
    """Progress in lines, for logs: at most one every ten seconds."""

    def __init__(self):
        self._next, self._stage = 0.0, None

    def __call__(self, kind, name, done, total):
        import sys

        if kind != "note" and self._stage == name and time.monotonic() < self._next:
            return
        self._next, self._stage = time.monotonic() + 10.0, name if kind != "note" else self._stage
        print(name if kind == "note" else f"{kind}: {name}, {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    import sys

    sys.exit(_main())
