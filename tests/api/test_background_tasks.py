import asyncio

from api.background_tasks import cancel_and_wait


async def test_running_tasks_are_cancelled() -> None:
    sleepers = [asyncio.create_task(asyncio.sleep(30)) for _ in range(3)]
    async with asyncio.timeout(5):
        await cancel_and_wait(sleepers)
    assert all(sleeper.cancelled() for sleeper in sleepers)


async def test_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    cancellations = 0

    async def stubborn() -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancellations += 1

    running = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_and_wait([running])
    assert cancellations == 2


async def test_finished_and_failed_tasks_are_ignored() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    failed = asyncio.create_task(fail())
    await asyncio.wait([failed])
    async with asyncio.timeout(5):
        await cancel_and_wait([failed])
        await cancel_and_wait([])
    assert isinstance(failed.exception(), ZeroDivisionError)
