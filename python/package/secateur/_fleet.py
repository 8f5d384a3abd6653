"""Workers on a Ray cluster that score candidates, and what becomes of those whose worker is gone."""

import collections
import queue
import time
import warnings

import ray
from ray.exceptions import RayError, RayTaskError

from secateur._secateur import Evaluator
from secateur.errors import ArgumentError, RunFailed

# Time between two looks at which nodes there are.
LOOK_EVERY_S = 2.0
# Time without any worker after which that is told.
LONELY_S = 15.0
# A candidate that so many workers ended with is not tried again.
TRIES_MAX = 6
# Workers in a row that end before they can score; with none at work nothing else will help either.
FAILED_JOINS_MAX = 4


class _Scorer:
    """In a process of a worker."""

    def prepare(self, inputs, threads, may_differ, evaluator_of):
        """How this machine's scores may differ, and the node's name; an error's text where it cannot score."""
        import socket

        make = evaluator_of or Evaluator.of_worker_inputs
        try:
            self._evaluator = make(inputs, threads, may_differ)
        except ArgumentError as error:
            return socket.gethostname(), None, str(error)
        return socket.gethostname(), self._evaluator.difference, None

    def score(self, candidate):
        return self._evaluator.score(candidate)


class _Worker:
    def __init__(self, actor):
        self.actor, self.is_ready = actor, False
        # In the order in which they were handed out: the first is the one that is being scored.
        self.out = collections.OrderedDict()


class Fleet:
    """As many workers as were asked for, or as the cluster's nodes have room for. They are actors that Ray does not restart: a call to
    one that Ray restarts waits for as long as there is no node for it, while other workers have nothing to do. So a worker that is gone
    is dropped, its candidates go to others, and a new one takes its place wherever there is room."""

    def __init__(self, inputs, *, num_workers, cpus_per_worker, in_flight_per_worker, may_differ, note, evaluator_of=None):
        import numpy

        # Once into the object store; each node takes it from there once, and its workers read it where it lies.
        self._inputs = ray.put(numpy.frombuffer(inputs, dtype=numpy.uint8))
        self._num_workers, self._cpus, self._in_flight = num_workers, cpus_per_worker, in_flight_per_worker
        self._may_differ, self._evaluator_of, self._note = may_differ, evaluator_of, note
        self._actor_class = ray.remote(num_cpus=cpus_per_worker, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(_Scorer)
        self._workers, self._refused, self._differing = set(), [], set()
        self._returned = queue.SimpleQueue()
        # Ready workers by how many candidates they have.
        self._by_load = [collections.OrderedDict() for _ in range(in_flight_per_worker)]
        self._losses = collections.Counter()
        self._n_failed_joins, self._join_from, self._looked, self._alone_since = 0, 0.0, 0.0, time.monotonic()
        self._had_workers, self.n_lost = False, 0
        self.look()

    # Who is there

    @property
    def n_ready(self):
        return sum(worker.is_ready for worker in self._workers)

    def _wanted(self):
        if self._num_workers is not None:
            return self._num_workers
        room = (int(node["Resources"].get("CPU", 0) // self._cpus) for node in ray.nodes() if node["Alive"])
        return sum(room)

    def look(self):
        """Takes nodes into account that have joined or left."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        wanted = self._wanted() - len(self._refused)
        # Nodes that were there may come again.
        if wanted <= 0 and not self._workers and (self._refused or not self._had_workers):
            self._nobody()
        while len(self._workers) < wanted and now >= self._join_from:
            self._join()
        # Those that wait for a node that is gone.
        for worker in [worker for worker in self._workers if not worker.is_ready][: max(0, len(self._workers) - max(wanted, 1))]:
            self._drop(worker)
        if self.n_ready:
            self._alone_since = now
        elif now - self._alone_since > LONELY_S:
            self._alone_since = now
            cpus = ray.cluster_resources().get("CPU", 0)
            self._note(f"no worker yet: {len(self._workers)} wait for {self._cpus} free CPUs each; the cluster has {cpus:g}, {ray.available_resources().get('CPU', 0):g} of them free")

    def _nobody(self):
        if self._refused:
            raise ArgumentError(f"every worker was refused; the last: {self._refused[-1]}")
        raise ArgumentError(
            f"no node of the cluster has {self._cpus} CPUs for a worker: start nodes, ask for fewer cpus_per_worker, or name num_workers to wait for them"
        )

    def _join(self):
        worker = _Worker(self._actor_class.remote())
        self._workers.add(worker)
        call = worker.actor.prepare.remote(self._inputs, self._cpus, self._may_differ, self._evaluator_of)
        call.future().add_done_callback(lambda done: self._returned.put((worker, None, done)))

    def _joined(self, worker, told):
        host, difference, refusal = told
        self._n_failed_joins = 0
        if refusal is not None:
            # It keeps its place in the count: another one would as likely come to the same node.
            self._refused.append(f"on {host}: {refusal}")
            self._note(f"a worker on {host} is refused: {refusal}")
            self._drop(worker)
            if not self._workers and len(self._refused) >= self._wanted():
                self._nobody()
            return
        if difference is not None and (host, difference) not in self._differing:
            self._differing.add((host, difference))
            text = f"scores of the worker on {host} may differ in their last digits: {difference}"
            self._note(text)
            warnings.warn(text, stacklevel=2)
        worker.is_ready = self._had_workers = True
        self._by_load[0][worker] = None

    def _drop(self, worker):
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        if worker.is_ready and len(worker.out) < self._in_flight:
            del self._by_load[len(worker.out)][worker]
        worker.is_ready = False
        # Also one that only cannot be reached: what it may still return is not waited for.
        ray.kill(worker.actor)

    def _lost(self, worker, candidate, error):
        if worker in self._workers:
            self.n_lost += 1
            if candidate is None:
                self._n_failed_joins += 1
                self._join_from = time.monotonic() + min(0.25 * 2**self._n_failed_joins, 30.0)
            else:
                # Those behind the first were only waiting.
                first = next(iter(worker.out.values()))
                self._losses[first] += 1
                if self._losses[first] >= TRIES_MAX:
                    raise RunFailed(
                        f"task '{first.task}', walk {first.walk}: {TRIES_MAX} workers ended while they scored it (is there memory enough for each?); the last: {_line(error)}"
                    )
            self._note(f"a worker is gone, {len(worker.out)} candidates go to others: {_line(error)}")
            self._drop(worker)
            self._looked = 0.0
            if self._n_failed_joins >= FAILED_JOINS_MAX and not self.n_ready:
                raise RunFailed(
                    f"no worker comes up, {self._n_failed_joins} in a row ended (has every node this wheel of secateur and the same Python?); the last: {_line(error)}"
                )

    # What they do

    def room(self):
        """How many candidates can be handed out now."""
        return sum((self._in_flight - load) * len(workers) for load, workers in enumerate(self._by_load))

    def submit(self, candidate):
        """Hands a candidate to the worker that has fewest; there must be room."""
        load = next(load for load, workers in enumerate(self._by_load) if workers)
        worker, _ = self._by_load[load].popitem(last=False)
        worker.out[id(candidate)] = candidate
        if load + 1 < self._in_flight:
            self._by_load[load + 1][worker] = None
        call = worker.actor.score.remote(candidate)
        call.future().add_done_callback(lambda done: self._returned.put((worker, candidate, done)))

    def wait(self, timeout):
        """Candidates with their scores, and candidates whose worker is gone, once there are any or the time is over."""
        scored, lost = [], []
        self.look()
        try:
            returned = self._returned.get(timeout=timeout)
        except queue.Empty:
            return scored, lost
        while returned is not None:
            self._take(*returned, scored, lost)
            try:
                returned = self._returned.get_nowait()
            except queue.Empty:
                returned = None
        return scored, lost

    def _take(self, worker, candidate, done, scored, lost):
        error = done.exception()
        if isinstance(error, RayTaskError):
            cause = error.cause if isinstance(error.cause, Exception) else error
            what = "preparing a worker" if candidate is None else f"task '{candidate.task}', walk {candidate.walk}"
            raise RunFailed(f"{what}: {cause}") from error
        if error is not None and not isinstance(error, RayError):
            raise error
        if error is not None:
            # Before it leaves the list of what the worker has.
            self._lost(worker, candidate, error)
        if candidate is None:
            if error is None and worker in self._workers:
                self._joined(worker, done.result())
            return
        before = len(worker.out)
        del worker.out[id(candidate)]
        if error is not None:
            lost.append(candidate)
            return
        scored.append((candidate, done.result()))
        if worker.is_ready:
            if before < self._in_flight:
                del self._by_load[before][worker]
            self._by_load[before - 1][worker] = None

    def close(self):
        for worker in list(self._workers):
            self._drop(worker)


def _line(error):
    """The first lines of an error as one; Ray's have pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4])[:400]
