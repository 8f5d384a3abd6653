"""Asked and told from Python, a search ends as a run does."""

import concurrent.futures
import json
import multiprocessing
import pickle
import random

import pytest
import secateur
from conftest import QUICKSTART, SMALL, timeless

_evaluator = None


def score_in_worker(candidate):
    return _evaluator.score(candidate)


def take_evaluator(pickled):
    global _evaluator
    _evaluator = pickle.loads(pickled)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return secateur.run(QUICKSTART, out=tmp_path_factory.mktemp("alone") / "run", sets=SMALL, progress=False)


def test_a_search_scored_in_two_other_processes_ends_as_a_run(alone, tmp_path):
    search = secateur.Search(QUICKSTART, out=tmp_path / "run", sets=SMALL)
    pickled = pickle.dumps(search.evaluator())
    assert len(pickled) < 50_000, "an evaluator is its scene and paths"
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, context, take_evaluator, (pickled,)) as workers:
        while not search.done:
            futures = {workers.submit(score_in_worker, candidate): candidate for candidate in search.ask(100)}
            for future in concurrent.futures.as_completed(futures):
                search.tell(futures[future], future.result())
    for best in search.best():
        assert 0 < best.reward <= 1 and best.candidate.task == best.task
    assert len(search.best()) == len(alone.tasks)
    result = search.finish(progress=False)
    assert timeless(result.summary) == timeless(alone.summary)


def test_a_loaded_search_asks_only_for_what_it_was_not_told(tmp_path):
    make = dict(out=tmp_path / "run", sets=SMALL)
    first = secateur.Search(QUICKSTART, **make)
    evaluator = first.evaluator()
    candidate = first.ask(1)[0]
    first.tell(candidate, evaluator.score(candidate))
    first.save(tmp_path / "search.json")
    second = secateur.Search.load(tmp_path / "search.json", QUICKSTART, **make)
    asked = second.ask(100)
    assert candidate not in asked and len(asked) > 0
    assert second.n_told == 1
    with pytest.raises(secateur.ArgumentError, match="`seed` is 7 there and 8 here"):
        secateur.Search.load(tmp_path / "search.json", QUICKSTART, sets=[*SMALL, "seed=8"])


def test_scores_count_as_they_come_under_async_and_the_same_scores_give_the_same_run(tmp_path):
    sets = [*SMALL, "scheduler=Async", "controls=[]"]
    search = secateur.Search(QUICKSTART, out=tmp_path / "run", sets=sets)
    evaluator, out, n_together = search.evaluator(), [], []
    while not search.done:
        while new := search.ask(100):
            out += new
        n_together.append(len(out))
        if out:
            # The last that came is scored first; what waits longest is scored last.
            candidate = out.pop()
            search.tell(candidate, evaluator.score(candidate))
    assert n_together[0] == 4 and n_together[3] > 1, "two actors of two tasks, of which one goes on with every score"
    search.save(tmp_path / "search.json")
    result = search.finish(progress=False)
    assert result.summary["walks"] == 12 and result.summary["scheduler"] == "async"
    again = secateur.Search.load(tmp_path / "search.json", QUICKSTART, out=tmp_path / "again", sets=sets)
    assert again.ask(100) == [] and timeless(again.finish(progress=False).summary) == timeless(result.summary)


@pytest.mark.parametrize("scheduler", ["Lockstep", "Async"])
def test_whatever_is_lost_and_wherever_a_search_is_saved_every_walk_counts_once(scheduler, tmp_path):
    draw, file, sets = random.Random(2), tmp_path / "search.json", [*SMALL, "walks_per_task=20", f"scheduler={scheduler}", "controls=[]"]
    make, n_lost = dict(out=tmp_path / "run", sets=sets), 0
    for until in (1, 6, 15, 28, 40):
        search = secateur.Search.load(file, QUICKSTART, **make) if file.exists() else secateur.Search(QUICKSTART, **make)
        evaluator, out, n_steps = search.evaluator(), [], 0
        while not search.done and (search.n_told < until or until == 40):
            while new := search.ask(3):
                out += new
            n_steps += 1
            if n_steps % 4 == 0:
                # Whoever had them is gone.
                n_lost += len(out)
                assert search.ask_again() == len(out)
                out.clear()
            elif out:
                candidate = out.pop(draw.randrange(len(out)))
                search.tell(candidate, evaluator.score(candidate))
        search.save(file)
    result = search.finish(progress=False)
    assert n_lost > 10
    with open(tmp_path / "run" / "metrics.jsonl") as lines:
        walked = [(event["task"], event["walk"]) for event in map(json.loads, lines) if event["event"] == "candidate"]
    assert sorted(walked) == sorted((task.name, walk) for task in result.tasks for walk in range(20))
    again = secateur.Search.load(file, QUICKSTART, out=tmp_path / "again", sets=sets)
    assert again.ask(3) == [] and again.done
    assert timeless(again.finish(progress=False).summary) == timeless(result.summary), "the same scores in the same order"
    if scheduler == "Lockstep":
        alone = secateur.run(QUICKSTART, out=tmp_path / "alone", sets=sets, progress=False)
        assert timeless(result.summary) == timeless(alone.summary)


def test_what_is_told_twice_elsewhere_or_is_no_score_is_refused():
    search = secateur.Search(QUICKSTART, sets=SMALL)
    candidate, second = search.ask(2)
    score = search.evaluator().score(candidate)
    with pytest.raises(secateur.ArgumentError, match="NaN"):
        search.tell(candidate, secateur.Score(accuracy=score.accuracy, divergence=float("nan")))
    with pytest.raises(secateur.ArgumentError, match="expected an accuracy"):
        search.tell(candidate, secateur.Score())
    search.tell(candidate, score)
    with pytest.raises(secateur.ArgumentError, match="was told before"):
        search.tell(candidate, score)
    with pytest.raises(TypeError):
        search.tell(second, 0.5)
    other = secateur.Search(QUICKSTART, sets=[*SMALL, "seed=8"])
    theirs = other.ask(1)[0]
    with pytest.raises(secateur.ArgumentError, match="another search"):
        search.tell(theirs, score)
    with pytest.raises(secateur.SecateurError, match="another search"):
        search.evaluator().score(theirs)
    assert search.ask_again() >= 1 and search.ask(1) == [second]
    with pytest.raises(secateur.ArgumentError, match="at least 1"):
        search.ask(0)
    with pytest.raises(secateur.SceneError, match="processor"):
        secateur.Search(QUICKSTART, sets=[*SMALL, "device=Gpu"])


def test_candidates_and_scores_survive_pickling():
    search = secateur.Search(QUICKSTART, sets=SMALL)
    candidate = search.ask(1)[0]
    score = search.evaluator().score(candidate)
    copies = pickle.loads(pickle.dumps((candidate, score)))
    assert copies == (candidate, score) and hash(copies[0]) == hash(candidate)
    assert candidate.widths == [len(kept) for kept in candidate.kept] and candidate.macs > 0
    fresh = pickle.loads(pickle.dumps(search.evaluator()))
    assert fresh.score(copies[0]) == score
