from dataclasses import dataclass

from cellsparse_trainer.data.lru_cache import Recent


@dataclass
class Made:
    number: int
    nbytes: int = 10


def test_the_newest_stay_up_to_the_bound_and_others_are_made_again():
    made = []

    def make(number):
        made.append(number)
        return Made(number)

    recent = Recent(make, 25)
    assert [recent[number].number for number in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert made == [1, 2, 3, 2]


def test_one_that_is_larger_than_the_bound_is_kept_alone():
    recent = Recent(Made, 5)
    assert recent[1] is recent[1]
    first = recent[1]
    assert recent[2].number == 2
    assert recent[1] is not first
