import asyncio

from api.background_tasks import cancel_and_wait


async def test_what_runs_is_ended() -> None:
    sleepers = [asyncio.create_task(asyncio.sleep(30)) for _ in range(3)]
    async with asyncio.timeout(5):
        await cancel_and_wait(sleepers)
    assert all(sleeper.cancelled() for sleeper in sleepers)


async def test_a_task_that_swallows_its_cancellation_is_asked_again() -> None:
    asked = 0

    async def stubborn() -> None:
        nonlocal asked
        while asked < 2:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                asked += 1

    running = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_and_wait([running])
    assert asked == 2


async def test_what_has_ended_already_even_badly_is_no_trouble() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    failed = asyncio.create_task(fail())
    await asyncio.wait([failed])
    async with asyncio.timeout(5):
        await cancel_and_wait([failed])
        await cancel_and_wait([])
    assert isinstance(failed.exception(), ZeroDivisionError)
