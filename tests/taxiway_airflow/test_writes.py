import asyncio

import pytest

from taxiway_airflow.writes import OneWriter


class Crowd:
    """An ASGI app that counts how many requests are in it at once."""

    def __init__(self, fails: bool = False) -> None:
        self.inside = self.most = self.served = 0
        self.fails = fails

    async def __call__(self, scope, receive, send) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if self.fails:
                raise RuntimeError("the route failed")
        finally:
            self.inside -= 1
        self.served += 1


async def crowded(crowd, kind, method):
    app = OneWriter(crowd)
    return await asyncio.gather(*(app({"type": kind, "method": method}, None, None) for _ in range(5)), return_exceptions=True)


@pytest.mark.parametrize(
    ("database", "kind", "method", "most"),
    [
        ("sqlite:////a/b.db?timeout=60", "http", "POST", 1),
        ("sqlite:////a/b.db", "http", "PATCH", 1),
        ("sqlite:////a/b.db", "http", "PUT", 1),
        ("sqlite:////a/b.db", "http", "DELETE", 1),
        ("sqlite:////a/b.db", "http", "GET", 5),
        ("sqlite:////a/b.db", "lifespan", "", 5),
        ("postgresql+psycopg2://a/b", "http", "POST", 5),
    ],
)
def test_who_takes_turns(monkeypatch, database, kind, method, most):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", database)
    crowd = Crowd()
    assert asyncio.run(crowded(crowd, kind, method)) == [None] * 5
    assert (crowd.most, crowd.served) == (most, 5)


def test_one_that_fails_gives_its_turn_on(monkeypatch):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////a/b.db")
    crowd = Crowd(fails=True)
    assert all(isinstance(e, RuntimeError) for e in asyncio.run(crowded(crowd, "http", "POST")))
    assert (crowd.most, crowd.inside) == (1, 0)
