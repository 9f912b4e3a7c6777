from localaws.progress import Progress


def test_a_wait_lasts_as_long_as_something_moves() -> None:
    now = 0.0
    progress = Progress(60, clock=lambda: now)
    for value in range(1000):  # 50,000 s in all, and never 60 s without a change
        now += 50
        assert not progress.stalled("the same", value)
    now += 60
    assert not progress.stalled("the same", 999)
    now += 1
    assert progress.stalled("the same", 999)


def test_what_moves_again_may_rest_as_long_as_before() -> None:
    now = 0.0
    progress = Progress(60, clock=lambda: now)
    now = 100
    assert not progress.stalled(1)
    now = 150
    assert not progress.stalled(2)
    now = 205
    assert not progress.stalled(2)
