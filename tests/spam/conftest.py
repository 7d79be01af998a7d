"""The real spamd and rspamd, started once for all tests of this folder, each in a directory of its own."""

from collections.abc import Callable, Iterator

import pytest

from tests.spam.desk import Desk, open_desk
from tests.spam.site import Site
from tests.stack.children import remove, temporary_directory
from tests.stack.fake_scorer import Engine, FakeScorer
from tests.stack.rspamd import Rspamd
from tests.stack.spamd import Spamd

ENGINES: tuple[Engine, ...] = ("spamd", "rspamd")


@pytest.fixture(scope="session")
def real_servers() -> Iterator[dict[str, Spamd | Rspamd]]:
    directory = temporary_directory("mailgate-scorers-")
    directory.chmod(0o755)
    servers: dict[str, Spamd | Rspamd] = {"spamd": Spamd(directory / "spamd"), "rspamd": Rspamd(directory / "rspamd")}
    try:
        for server in servers.values():
            server.begin()
        for server in servers.values():
            server.ready()
        yield servers
    finally:
        for server in servers.values():
            server.close()
        remove(directory)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def real(real_servers: dict[str, Spamd | Rspamd], engine: Engine) -> Iterator[Spamd | Rspamd]:
    """The real server of that engine, running."""
    server = real_servers[engine]
    if not server.port.open():
        server.start()
    yield server
    server.thaw()


@pytest.fixture
def fake(engine: Engine) -> Iterator[FakeScorer]:
    """A server that can be told to misbehave."""
    with FakeScorer(engine) as server:
        yield server


@pytest.fixture
def make() -> Iterator[Callable[..., Site]]:
    """Makes sites, and puts them away."""
    sites: list[Site] = []

    def one(count: int = 1, connections: int = 4, timeout: float = 10.0) -> Site:
        sites.append(Site(count, connections, timeout))
        return sites[-1]

    yield one
    for fake in (fake for site in sites for fake in site.fakes):
        fake.close()


@pytest.fixture(scope="module")
def _desk() -> Iterator[Desk]:
    with open_desk() as desk:
        yield desk


@pytest.fixture
def desk(_desk: Desk, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """The desk with the default policy, all well."""
    failed = request.session.testsfailed
    _desk.put_in_order()
    _desk.policy()
    yield _desk
    if request.session.testsfailed > failed:
        print(_desk.gate.log.read_text()[-5000:])
