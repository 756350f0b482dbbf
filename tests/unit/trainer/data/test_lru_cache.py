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
