"""Results and what belongs to them, in real databases."""

from __future__ import annotations

import http.client
from collections.abc import Callable

import anyio
import pytest
from counting_proxy import CountingProxy
from made_up_service import Answer, MadeUpService, always
from registering import use_databases
from seamless import Checksum
from services import Service
from stored_buffers import checksum_of, fresh

from seamless_remote import database_remote
from seamless_remote.errors import AnswerError, RefusedError, ServiceError

pytestmark = pytest.mark.usefixtures("host")


def new() -> Checksum:
    """A checksum that nobody has used yet."""
    return checksum_of(fresh(30))


def record(tf: Checksum, result: Checksum, **more: object) -> dict[str, object]:
    return {
        "schema_version": 1,
        "tf_checksum": tf.hex(),
        "result_checksum": result.hex(),
        "wall_seconds": 0.25,
        **more,
    }


def test_the_same_names_are_there_for_readers_of_the_contract() -> None:
    names = """get_transformation_result set_transformation_result get_rev_transformations
    get_execution_record set_execution_record get_bucket_probe set_bucket_probe
    get_irreproducible_records undo_transformation_result"""
    assert all(callable(getattr(database_remote, name)) for name in names.split())


async def test_a_result_is_recorded_and_found(shared_database: Service) -> None:
    use_databases(shared_database)
    tf, result = new(), new()
    assert await database_remote.get_transformation_result(tf) is None
    assert await database_remote.set_transformation_result(tf, result) is True
    found = await database_remote.get_transformation_result(tf)
    assert isinstance(found, Checksum)
    assert found == result


async def test_a_result_is_replaced_by_a_later_one(shared_database: Service) -> None:
    use_databases(shared_database)
    tf, first, second = new(), new(), new()
    assert await database_remote.set_transformation_result(tf, first)
    assert await database_remote.set_transformation_result(tf, second)
    assert await database_remote.get_transformation_result(tf) == second


async def test_reverse_transformations_are_each_there_once_in_order(
    shared_database: Service,
) -> None:
    use_databases(shared_database)
    result, first, second, third = new(), new(), new(), new()
    assert await database_remote.get_rev_transformations(result) is None
    for tf in (first, second, first, third, second, first):
        assert await database_remote.set_transformation_result(tf, result)
    assert await database_remote.get_rev_transformations(result) == [first, second, third]


async def test_an_execution_record_is_kept_and_another_one_is_refused(
    shared_database: Service,
) -> None:
    use_databases(shared_database)
    tf, result = new(), new()
    assert await database_remote.get_execution_record(tf) is None
    await database_remote.set_transformation_result(tf, result)
    mine = record(tf, result)
    assert await database_remote.set_execution_record(tf, result, mine) is True
    assert await database_remote.get_execution_record(tf) == mine
    assert await database_remote.set_execution_record(tf, result, mine) is True
    other = record(tf, result, wall_seconds=9.0)
    assert await database_remote.set_execution_record(tf, result, other) is False
    assert await database_remote.get_execution_record(tf) == mine


async def test_an_execution_record_of_another_result_is_refused(shared_database: Service) -> None:
    use_databases(shared_database)
    tf, result, wrong = new(), new(), new()
    await database_remote.set_transformation_result(tf, result)
    await database_remote.set_execution_record(tf, result, record(tf, result))
    with pytest.raises(RefusedError) as refusal:
        await database_remote.set_execution_record(tf, wrong, record(tf, wrong))
    assert refusal.value.status == 409


@pytest.mark.parametrize("kind", ["node", "environment", "node_env", "queue", "queue_node"])
async def test_a_bucket_probe_is_kept_and_replaced(shared_database: Service, kind: str) -> None:
    use_databases(shared_database)
    label = f"somewhere-{new().hex()[:8]}"
    assert await database_remote.get_bucket_probe(kind, label) is None
    for bucket, when in ((new(), "2026-01-01T00:00:00Z"), (new(), "2026-02-02T00:00:00Z")):
        tokens = {"kernel": when}
        assert await database_remote.set_bucket_probe(kind, label, bucket, tokens, when) is True
        probe = await database_remote.get_bucket_probe(kind, label)
        assert probe is not None
        assert Checksum(probe["bucket_checksum"]) == bucket
        assert probe["freshness_tokens"] == tokens
        assert probe["captured_at"] == when


async def test_what_the_database_finds_malformed_is_refused_at_once(
    shared_database: Service, proxy: Callable[[Service], CountingProxy]
) -> None:
    between = proxy(shared_database)
    use_databases(between)
    with pytest.raises(RefusedError) as refusal:
        await database_remote.set_bucket_probe("bucket", "label", new(), {}, "never")
    assert refusal.value.status == 400
    assert between.count("PUT / ") == 1


async def test_an_undone_result_is_gone_and_stays_known_as_irreproducible(
    shared_database: Service,
) -> None:
    use_databases(shared_database)
    tf, result, other = new(), new(), new()
    assert await database_remote.get_irreproducible_records(tf) is None
    await database_remote.set_transformation_result(tf, result)
    await database_remote.set_execution_record(tf, result, record(tf, result))
    assert await database_remote.undo_transformation_result(tf, other) is False
    assert await database_remote.undo_transformation_result(tf, result) is True
    assert await database_remote.get_transformation_result(tf) is None
    (found,) = await database_remote.get_irreproducible_records(tf) or []
    assert found["checksum"] == tf.hex()
    assert found["result"] == result.hex()
    assert await database_remote.get_irreproducible_records(tf, result) == [found]
    assert await database_remote.get_irreproducible_records(tf, other) is None


async def test_without_a_database_nothing_is_known_and_nothing_written() -> None:
    use_databases()
    tf, result = new(), new()
    assert not database_remote.has_read_server()
    assert not database_remote.has_write_server()
    assert await database_remote.get_transformation_result(tf) is None
    assert await database_remote.get_rev_transformations(result) is None
    assert await database_remote.get_execution_record(tf) is None
    assert await database_remote.get_bucket_probe("node", "x") is None
    assert await database_remote.get_irreproducible_records(tf) is None
    assert await database_remote.set_transformation_result(tf, result) is False
    assert await database_remote.set_execution_record(tf, result, {}) is False
    assert await database_remote.set_bucket_probe("node", "x", tf, {}, "") is False
    assert await database_remote.undo_transformation_result(tf, result) is False


async def test_a_read_only_client_does_not_write(shared_database: Service) -> None:
    use_databases(shared_database, readonly=True)
    tf = new()
    assert await database_remote.set_transformation_result(tf, new()) is False
    assert await database_remote.get_transformation_result(tf) is None


async def test_a_read_only_database_refuses(made_up: Callable[[Answer], MadeUpService]) -> None:
    # Not the real one: seamless-database 2.1.0 does not start read-only with today's peewee.
    use_databases(made_up(always(405, b"ERROR: Database server is read-only")))
    with pytest.raises(RefusedError, match="read-only") as refusal:
        await database_remote.set_transformation_result(new(), new())
    assert refusal.value.status == 405


# Several databases.


async def test_databases_are_asked_in_order_until_one_knows(
    shared_database: Service,
    second_database: Service,
    proxy: Callable[[Service], CountingProxy],
) -> None:
    tf, first, second = new(), new(), new()
    for service, result in ((shared_database, first), (second_database, second)):
        use_databases(service)
        await database_remote.set_transformation_result(tf, result)
    between = [proxy(shared_database), proxy(second_database)]
    use_databases(*between)
    assert await database_remote.get_transformation_result(tf) == first
    assert [each.count("GET / ") for each in between] == [1, 0]
    use_databases(*reversed(between))
    assert await database_remote.get_transformation_result(tf) == second
    assert await database_remote.get_transformation_result(new()) is None
    assert [each.count("GET / ") for each in between] == [2, 2]


async def test_writes_go_to_all_databases(
    shared_database: Service, second_database: Service
) -> None:
    use_databases(shared_database, second_database)
    tf, result = new(), new()
    assert await database_remote.set_transformation_result(tf, result) is True
    for service in (shared_database, second_database):
        use_databases(service)
        assert await database_remote.get_transformation_result(tf) == result


async def test_an_unreachable_database_is_passed_over(
    shared_database: Service, nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    use_databases(nowhere, shared_database)
    tf, result = new(), new()
    assert await database_remote.set_transformation_result(tf, result) is True
    assert nowhere in caplog.text
    assert await database_remote.get_transformation_result(tf) == result


async def test_where_nobody_knows_but_not_all_could_be_asked_it_is_an_error(
    shared_database: Service, nowhere: str
) -> None:
    use_databases(nowhere, shared_database)
    with pytest.raises(ConnectionError, match=nowhere) as error:
        await database_remote.get_transformation_result(new())
    assert isinstance(error.value, ServiceError)
    assert "5 times" in str(error.value)
    use_databases(nowhere)
    with pytest.raises(ConnectionError, match="writing of a transformation"):
        await database_remote.set_transformation_result(new(), new())


# Answers that make no sense.

READS: dict[str, Callable[[], object]] = {
    "result": lambda: database_remote.get_transformation_result(new()),
    "reverse": lambda: database_remote.get_rev_transformations(new()),
    "record": lambda: database_remote.get_execution_record(new()),
    "probe": lambda: database_remote.get_bucket_probe("node", "x"),
    "irreproducible": lambda: database_remote.get_irreproducible_records(new()),
}


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        ("result", b"<html>"),
        ("result", b""),
        ("result", b"ab" * 31),
        ("result", b"AB" * 32),
        ("result", b"zz" * 32),
        ("reverse", b"not json"),
        ("reverse", b"{}"),
        ("reverse", b'["abc"]'),
        ("reverse", b"[[]]"),
        ("record", b"[]"),
        ("record", b"\xff"),
        ("probe", b"7"),
        ("irreproducible", b"{}"),
        ("irreproducible", b"[1]"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error_and_the_next_is_asked(
    made_up: Callable[[Answer], MadeUpService],
    second_database: Service,
    read: str,
    answer: bytes,
) -> None:
    confused = made_up(always(200, answer))
    use_databases(confused)
    with pytest.raises(AnswerError, match=confused.url):
        await READS[read]()
    if read == "result":
        tf, result = new(), new()
        use_databases(second_database)
        await database_remote.set_transformation_result(tf, result)
        use_databases(confused, second_database)
        assert await database_remote.get_transformation_result(tf) == result


async def test_a_write_whose_answer_is_lost_takes_effect_once(
    database: Callable[..., Service], made_up: Callable[[Answer], MadeUpService]
) -> None:
    """The first write reaches the database, and its answer never comes: a 503 instead."""
    service = database()
    lost = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if method == "PUT" and not lost:
            lost.append(body)
            return 503, b"lost"
        return response.status, content

    between = made_up(answer)
    use_databases(between)
    tf, result = new(), new()
    assert await database_remote.set_transformation_result(tf, result) is True
    assert lost
    assert await database_remote.get_rev_transformations(result) == [tf]
    assert await database_remote.get_transformation_result(tf) == result


async def test_many_look_ups_at_once_get_each_its_own_answer(shared_database: Service) -> None:
    use_databases(shared_database)
    pairs = [(new(), new()) for _ in range(200)]
    found: dict[Checksum, Checksum | None] = {}

    async def write(tf: Checksum, result: Checksum) -> None:
        assert await database_remote.set_transformation_result(tf, result)

    async def read(tf: Checksum) -> None:
        found[tf] = await database_remote.get_transformation_result(tf)

    async with anyio.create_task_group() as task_group:
        for tf, result in pairs:
            task_group.start_soon(write, tf, result)
    async with anyio.create_task_group() as task_group:
        for tf, _ in pairs:
            task_group.start_soon(read, tf)
    assert found == dict(pairs)
