from concurrent.futures import ThreadPoolExecutor

from vending.supply.once import REMEMBERED, Once


def test_a_fingerprint_is_new_once() -> None:
    once = Once()
    assert [once.first_time(name) for name in ("a", "b", "a", "b", "c")] == [True, True, False, False, True]


def test_of_many_threads_with_the_same_fingerprint_one_wins() -> None:
    once = Once()
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(once.first_time, ["same"] * 1000)) == 1


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    once = Once()
    for number in range(REMEMBERED + 1):
        once.first_time(str(number))
    assert len(once._seen) == REMEMBERED
    assert once.first_time("0")
    assert not once.first_time(str(REMEMBERED))
