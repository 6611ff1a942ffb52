import threading
import time

import pytest

from visionkit.core.prefetch import prefetch, prefetch_map


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order(threads):
    def slow(k):
        time.sleep(0.002 * (k % 3))
        return k * k

    assert list(prefetch_map(slow, range(20), threads=threads, depth=4)) == [k * k for k in range(20)]
    assert list(prefetch_map(slow, [], threads=threads, depth=4)) == []


def test_no_more_wait_than_are_allowed():
    done, taken = [], []
    for k in prefetch_map(done.append, range(30), threads=2, depth=3):
        taken.append(k)
        assert len(done) <= len(taken) + 3
    assert len(done) == 30


def test_threads_work_while_the_caller_does():
    """The third item is started before the first result is asked to be used."""
    started = threading.Event()

    def work(k):
        if k == 2:
            started.set()
        return k

    results = prefetch_map(work, range(10), threads=1, depth=4)
    assert next(results) == 0
    assert started.wait(10)
    assert list(results) == list(range(1, 10))


def test_an_error_comes_at_its_place_and_ends_the_threads():
    def fail(k):
        if k == 3:
            raise ValueError("three")
        return k

    results = prefetch_map(fail, range(10), threads=2, depth=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("read")]


class TestAhead:
    def test_everything_comes_in_order(self):
        assert list(prefetch((k for k in range(50)), 3)) == list(range(50))
        assert list(prefetch((k for k in ()), 3)) == []

    def test_another_thread_makes_them_but_no_more_than_may_wait(self):
        made, here = [], threading.get_ident()

        def items():
            for k in range(20):
                assert threading.get_ident() != here
                made.append(k)
                yield k

        for count, k in enumerate(prefetch(items(), 3)):
            assert k == count
            assert len(made) <= count + 5

    @pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
    def test_errors_come_at_their_place(self, error):
        def items():
            yield 1
            raise error

        results = prefetch(items(), 3)
        assert next(results) == 1
        with pytest.raises(type(error)):
            next(results)

    def test_closing_closes_the_generator_and_ends_the_thread(self):
        closed = []

        def items():
            try:
                k = 0
                while True:
                    yield (k := k + 1)
            finally:
                closed.append(True)

        results = prefetch(items(), 2)
        next(results)
        results.close()
        assert closed == [True]
        assert not [t for t in threading.enumerate() if t.name == "prefetch"]
