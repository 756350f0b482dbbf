import pickle
import threading
from dataclasses import dataclass

from cellsparse_trainer.data.lru_cache import SizedLruCache


@dataclass
class Made:
    number: int
    nbytes: int = 10


def test_the_newest_stay_up_to_the_bound_and_others_are_made_again():
    made = []

    def make(number):
        made.append(number)
        return Made(number)

    cache = SizedLruCache(make, 25)
    assert [cache[number].number for number in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 2, 3, 2]


def test_one_that_is_larger_than_the_bound_is_kept_alone():
    cache = SizedLruCache(Made, 5)
    assert cache[1] is cache[1]
    first = cache[1]
    assert cache[2].number == 2
    assert cache[1] is not first


def test_each_gives_all_in_order_and_keeps_the_last_ones():
    cache = SizedLruCache(Made, 35)
    assert [made.number for made in cache.each(range(20))] == list(range(20))
    assert cache[19] is cache[19]


def test_threads_may_read_at_once_and_a_pickled_cache_takes_its_values_along():
    cache = SizedLruCache(Made, 1000)
    threads = [threading.Thread(target=lambda: [cache[number % 7] for number in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cache[number].number for number in range(7)] == list(range(7))
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301 - our own
    assert [copy[number] for number in range(7)] == [cache[number] for number in range(7)]
